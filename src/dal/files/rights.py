"""Who may do what with a file: its owner everything, others what they were granted, whoever has a link what it allows.

`read` is to see it and its content, `write` also to rename, replace in name and delete it, `admin` also to grant.
Somebody who may not do a thing gets AccessDeniedError, word for word the same whether the file is there or not.
"""

from __future__ import annotations

import hashlib
from typing import Final

from dal.errors import AccessDeniedError, NotFoundError
from dal.file_models import Caller, Permission
from dal.files.core import DELETED, QUARANTINED, Core, Operation, plain
from dal.limits import MAX_KEY_CHARS
from dal.models import FileRecord
from dal.ops import Compare, Select
from dal.repositories.base import known_id

#: Each permission with those that hold it too.
HOLDERS: Final[dict[Permission, tuple[Permission, ...]]] = {
    "read": ("read", "write", "admin"),
    "write": ("write", "admin"),
    "admin": ("admin",),
}
_DENIED: Final = "there is no such file, or you have no right to this"


async def find(
    core: Core, operation: Operation, file_id: object, need: Permission, *, is_deleted: bool = False
) -> FileRecord:
    """The file, for a caller who may do that with it.

    Raises  AccessDeniedError: no right, or no such file.  NotFoundError: the application asks, and there is none.
    Cost    one indexed read; one more for each of a grant and a token.
    """
    key = known_id("file_id", file_id)
    record = None if key is None else await core.record(key)
    by = operation.by
    if record is None or (record.status == DELETED) is not is_deleted:
        if by is None:
            state = "deleted " if is_deleted else ""
            raise NotFoundError(f"files: no {state}file has the id {str(file_id)[:40]!r}")
        raise AccessDeniedError(f"files: {_DENIED}")
    operation.owner = record.user_id
    if by is not None and not await _may(core, record, by, need):
        raise AccessDeniedError(f"files: {_DENIED}")
    return record


def check_owner(by: Caller | None, user_id: str) -> None:
    """Whether a caller may act for that user: for themselves alone. Raises AccessDeniedError."""
    if by is not None and by.user_id != user_id:
        raise AccessDeniedError("files: only for oneself; somebody else's files are theirs to make")


def check_readable(record: FileRecord) -> None:
    """Whether the content may leave. Raises AccessDeniedError: it was not found clean."""
    if record.status == QUARANTINED:
        raise AccessDeniedError("files: quarantined until the scanner has found it clean")
    if record.status == "infected":
        raise AccessDeniedError("files: the scanner found something in it")


def token_hash(token: str) -> str:
    """What is stored of a public link's token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


async def _may(core: Core, record: FileRecord, by: Caller, need: Permission) -> bool:
    if by.user_id is not None and by.user_id == record.user_id:
        return True
    asked = []
    # To an id that no row can hold nothing was granted, and some stores cannot even look for it.
    if by.user_id is not None and plain(by.user_id, MAX_KEY_CHARS) == by.user_id:
        asked.append(Compare("grantee_id", "=", by.user_id))
    if by.token:
        asked.append(Compare("token_hash", "=", token_hash(by.token)))
    for who in asked:
        where = (
            Compare("file_id", "=", record.id),
            who,
            Compare("permission", "in", HOLDERS[need]),
            Compare("expires_at", "null or >", core.now()),
        )
        if await core.store.read(Select("file_permissions", where, limit=1, columns=("id",))):
            return True
    return False
