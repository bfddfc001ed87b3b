"""The public surface: the names of api.md and no others, documented, in files that one can read in a sitting."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import dal
import dal.errors
import dal.schema
from dal.files.service import Files as Contents
from dal.repositories.audit import Audit
from dal.repositories.chats import Chats
from dal.repositories.file_queue import FileQueue
from dal.repositories.files import Files
from dal.repositories.memory import Memory
from dal.repositories.messages import Messages
from dal.repositories.users import Users

SOURCE = Path(dal.__file__).parent
MAX_LINES = 450

RECORDS = {"User", "ChatSession", "Message", "MemoryItem", "FileRecord", "AuditEvent"}
FILE_RECORDS = {
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
}
FILE_VALUES = {"FileOptions", "FileReader", "Scanner", "SignedUpload"}
VALUES = {"NewMessage", "SearchHit", "Page", "Health", "Capabilities", "Settings"}
ENTRANCES = {"create_data_access", "DataAccess", "Transaction"}
#: The error classes of api.md, each with its base.
ERRORS = {
    "DalError": "Exception",
    "NotFoundError": "DalError",
    "AlreadyExistsError": "DalError",
    "ConflictError": "DalError",
    "FencedError": "ConflictError",
    "MissingReferenceError": "DalError",
    "InvalidInputError": "DalError",
    "LimitExceededError": "InvalidInputError",
    "QuotaExceededError": "DalError",
    "AccessDeniedError": "DalError",
    "UnsupportedError": "DalError",
    "UnavailableError": "DalError",
    "DalTimeoutError": "UnavailableError",
    "CorruptDataError": "DalError",
    "ConfigurationError": "DalError",
    "SchemaError": "DalError",
}
#: Every method of api.md with its parameters, `*` before those that are named.
METHODS = {
    Users: {
        "create": "* clerk_id email name profile preferences status id",
        "get": "user_id",
        "get_by_clerk_id": "clerk_id",
        "update": "user_id * expected_version **changes",
        "touch": "user_id",
        "delete": "user_id",
        "list": "* status email limit after",
    },
    Chats: {
        "create": "chat_id * user_id title profile metadata",
        "get": "chat_id",
        "update": "chat_id * expected_version **changes",
        "delete": "chat_id",
        "list": "* user_id status profile limit after",
    },
    Messages: {
        "add": "chat_id role content * metadata token_count id created_at expected_sequence",
        "add_many": "chat_id messages",
        "history": "chat_id * limit offset before",
        "iterate": "chat_id * batch_size",
        "count": "chat_id",
        "get": "message_id",
        "flag": "message_id abuse_flagged",
        "search": "text * user_id chat_id limit after",
    },
    Memory: {
        "set": "user_id memory_type key value * ttl expires_at expected_version",
        "set_many": "user_id memory_type items",
        "get": "user_id memory_type key default",
        "get_item": "user_id memory_type key",
        "list": "user_id memory_type",
        "delete": "user_id memory_type key",
        "purge_expired": "limit",
    },
    Files: {"create": "", "get": "", "get_by_storage_key": "", "update": "", "delete": "", "list": "* user_id"},
    Contents: {
        "create": "",
        "get": "",
        "get_by_storage_key": "",
        "update": "",
        "list": "* user_id",
        "upload": "user_id filename data * mime_type metadata if_absent by id",
        "open": "file_id * start end verify by",
        "read": "file_id * start end verify by",
        "download_to": "file_id path * verify by",
        "copy": "file_id * filename user_id by id",
        "rename": "file_id filename * expected_version by",
        "delete": "file_id * by",
        "restore": "file_id * by",
        "presign_get": "file_id * expires_in by",
        "presign_put": "user_id filename * size mime_type checksum metadata expires_in by",
        "start_upload": "user_id filename * mime_type total_size part_size metadata checksum by",
        "upload_part": "upload_id part_number data * size by",
        "presign_part": "upload_id part_number * expires_in size by",
        "complete_upload": "upload_id * checksum etags by",
        "abort_upload": "upload_id * by",
        "list_uploads": "* user_id status limit after",
        "list_parts": "upload_id * by",
        "grant": "file_id grantee_id permission * expires_in expires_at by",
        "link": "file_id permission * expires_in expires_at by",
        "revoke": "file_id grantee_id * permission_id by",
        "permissions": "file_id * by",
        "access_log": "* file_id user_id action success since until limit after",
        "quota": "user_id",
        "set_quota": "user_id * max_bytes max_files",
        "usage": "user_id",
        "scan": "* limit worker lease_s",
        "sweep": "* dry_run",
    },
    FileQueue: {
        "enqueue": "task * file_id payload priority run_at max_attempts id",
        "take": "worker * tasks lease_s limit",
        "extend": "task * lease_s",
        "finish": "task",
        "fail": "task error * retry_in_s",
        "revive": "task_id",
        "get": "task_id",
        "list": "* status task file_id limit after",
        "purge": "* before status",
    },
    Audit: {
        "record": "action * user_id entity_type entity_id level message context trace_id ip_address user_agent "
        "request_uri",
        "list": "* user_id entity_type entity_id action level trace_id since until limit after",
    },
    dal.DataAccess: {
        "open": "",
        "close": "",
        "transaction": "",
        "run_in_transaction": "fn * attempts",
        "health": "",
    },
}
#: Defaults that api.md names.
DEFAULTS = {
    (Users, "create", "status"): "active",
    (Users, "list", "limit"): 50,
    (Chats, "create", "profile"): "general",
    (Chats, "list", "limit"): 50,
    (Messages, "history", "limit"): 20,
    (Messages, "history", "offset"): 0,
    (Messages, "iterate", "batch_size"): 500,
    (Messages, "flag", "abuse_flagged"): True,
    (Messages, "search", "limit"): 20,
    (Memory, "get", "default"): None,
    (Memory, "purge_expired", "limit"): 1000,
    (Audit, "record", "level"): "info",
    (Audit, "list", "limit"): 100,
    (dal.DataAccess, "run_in_transaction", "attempts"): 5,
}


def parameters(function: object) -> list[str]:
    """Names in order, `*` before those that must be named, without self."""
    assert callable(function)
    names: list[str] = []
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in names:
            names.append("*")
        names.append(f"**{parameter.name}" if parameter.kind is parameter.VAR_KEYWORD else parameter.name)
    return names


def test_all_is_sorted_and_holds_every_name_of_the_contract() -> None:
    assert list(dal.__all__) == sorted(dal.__all__)
    assert len(set(dal.__all__)) == len(dal.__all__)
    assert set(dal.__all__) == RECORDS | FILE_RECORDS | FILE_VALUES | VALUES | ENTRANCES | set(ERRORS)


def test_every_name_can_be_had_and_star_import_gives_them_all() -> None:
    space: dict[str, object] = {}
    exec("from dal import *", space)  # noqa: S102
    for name in dal.__all__:
        assert space[name] is getattr(dal, name)
        assert name in dir(dal)
    with pytest.raises(AttributeError):
        dal.no_such_name  # noqa: B018


def test_every_name_of_the_schema_engine_is_what_it_says_and_no_module() -> None:
    for module in ("checking.validate", "linting.linter", "backups.backup", "deploying.deploy"):
        importlib.import_module(f"dal.schema.{module}")  # a submodule of the same name would take the name's place
    for name in dal.schema.__all__:
        assert not inspect.ismodule(getattr(dal.schema, name)), name
    with pytest.raises(AttributeError):
        dal.schema.no_such_name  # noqa: B018


def test_the_errors_are_those_of_the_contract_and_no_others() -> None:
    found = {
        name: cls.__bases__[0].__name__
        for name, cls in vars(dal.errors).items()
        if inspect.isclass(cls) and issubclass(cls, Exception) and cls.__module__ == "dal.errors"
    }
    assert found == ERRORS
    assert issubclass(dal.InvalidInputError, ValueError)


def test_every_method_has_the_parameters_of_the_contract() -> None:
    """Signatures may gain keyword arguments; they do not lose any, and the order of the others stays."""
    for cls, methods in METHODS.items():
        for name, expected in methods.items():
            found, wanted = parameters(getattr(cls, name)), expected.split()
            if "*" in wanted:
                split, at = wanted.index("*"), found.index("*")
                assert found[:at][: len(wanted[:split])] == wanted[:split], f"{cls.__name__}.{name}: {found}"
                assert set(wanted[split + 1 :]) <= set(found[at + 1 :]), f"{cls.__name__}.{name}: {found}"
            else:
                assert found[: len(wanted)] == wanted, f"{cls.__name__}.{name}: {found}"
    for (cls, name, parameter), default in DEFAULTS.items():
        assert inspect.signature(getattr(cls, name)).parameters[parameter].default == default


def test_every_public_name_has_a_docstring() -> None:
    """Every module has one, and so has all that callers use directly."""
    silent = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        where = path.relative_to(SOURCE.parent)
        if not ast.get_docstring(tree) and path.read_text("utf-8").strip():
            silent.append(str(where))
        if _promises(where):
            silent += [f"{where}: {name}" for name in _silent(tree)]
    assert not silent, "\n".join(silent)


def _promises(where: Path) -> bool:
    """Modules that callers use directly; a backend's and a layer's methods are documented by the Protocol they keep."""
    home = where.parts[1].removesuffix(".py")
    return home in {
        "access",
        "errors",
        "factory",
        "models",
        "ops",
        "repositories",
        "search",
        "store",
        "tables",
        "values",
    }


def _silent(tree: ast.Module) -> list[str]:
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node) and not _is_plain_record(node):
                found.append(node.name)
            if isinstance(node, ast.ClassDef):
                found += [
                    f"{node.name}.{inner.name}"
                    for inner in node.body
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not inner.name.startswith("_")
                    and not ast.get_docstring(inner)
                    and len(inner.body) > 1
                ]
    return found


def _is_plain_record(node: ast.stmt) -> bool:
    """A named tuple whose fields say all there is."""
    return isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "NamedTuple" for base in node.bases)


def test_no_file_outgrows_one_sitting() -> None:
    long = {
        str(path.relative_to(SOURCE)): lines
        for path in SOURCE.rglob("*.py")
        if (lines := len(path.read_text("utf-8").splitlines())) > MAX_LINES
    }
    assert not long, "find the second idea in them"


def test_the_package_is_typed() -> None:
    assert (SOURCE / "py.typed").exists()
