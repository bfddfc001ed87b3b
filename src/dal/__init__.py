"""dal: users, chats, messages, user memory, files and audit logs, the same on every store.

`create_data_access()` gives a typed, async DataAccess over JSON files, SQLite or PostgreSQL, chosen by the environment.
Names are loaded when they are first used, so that `import dal` costs a few milliseconds and loads no driver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dal.access import DataAccess, Transaction
    from dal.config import Settings
    from dal.errors import (
        AccessDeniedError,
        AlreadyExistsError,
        ConfigurationError,
        ConflictError,
        CorruptDataError,
        DalError,
        DalTimeoutError,
        FencedError,
        InvalidInputError,
        LimitExceededError,
        MissingReferenceError,
        NotFoundError,
        QuotaExceededError,
        SchemaError,
        UnavailableError,
        UnsupportedError,
    )
    from dal.factory import create_data_access
    from dal.file_models import (
        Caller,
        Cost,
        FileAccess,
        FilePermission,
        FileTask,
        MultipartUpload,
        PricingTier,
        Quota,
        StorageMetric,
        SweepReport,
        UploadPart,
        Usage,
    )
    from dal.files.options import FileOptions, Scanner
    from dal.files.reader import FileReader
    from dal.files.signing import SignedUpload
    from dal.models import (
        AuditEvent,
        ChatSession,
        FileRecord,
        Health,
        MemoryItem,
        Message,
        NewMessage,
        Page,
        SearchHit,
        User,
    )
    from dal.store import Capabilities

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError",
    "AlreadyExistsError",
    "AuditEvent",
    "Caller",
    "Capabilities",
    "ChatSession",
    "ConfigurationError",
    "ConflictError",
    "CorruptDataError",
    "Cost",
    "DalError",
    "DalTimeoutError",
    "DataAccess",
    "FencedError",
    "FileAccess",
    "FileOptions",
    "FilePermission",
    "FileReader",
    "FileRecord",
    "FileTask",
    "Health",
    "InvalidInputError",
    "LimitExceededError",
    "MemoryItem",
    "Message",
    "MissingReferenceError",
    "MultipartUpload",
    "NewMessage",
    "NotFoundError",
    "Page",
    "PricingTier",
    "Quota",
    "QuotaExceededError",
    "Scanner",
    "SchemaError",
    "SearchHit",
    "Settings",
    "SignedUpload",
    "StorageMetric",
    "SweepReport",
    "Transaction",
    "UnavailableError",
    "UnsupportedError",
    "UploadPart",
    "Usage",
    "User",
    "create_data_access",
]

_HOMES = {
    "dal.access": ("DataAccess", "Transaction"),
    "dal.config": ("Settings",),
    "dal.factory": ("create_data_access",),
    "dal.file_models": (
        "Caller",
        "Cost",
        "FileAccess",
        "FilePermission",
        "FileTask",
        "MultipartUpload",
        "PricingTier",
        "Quota",
        "StorageMetric",
        "SweepReport",
        "UploadPart",
        "Usage",
    ),
    "dal.files.options": ("FileOptions", "Scanner"),
    "dal.files.reader": ("FileReader",),
    "dal.files.signing": ("SignedUpload",),
    "dal.models": (
        "AuditEvent",
        "ChatSession",
        "FileRecord",
        "Health",
        "MemoryItem",
        "Message",
        "NewMessage",
        "Page",
        "SearchHit",
        "User",
    ),
    "dal.store": ("Capabilities",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'dal' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF.get(name, "dal.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
