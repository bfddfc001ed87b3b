"""What a backup says about itself: `<name>.manifest.json` beside its file, written last.

A backup without it was not finished and is never restored. It holds no secret. Its own checksum tells an edited or torn
manifest; like the digests, it guards against accidents, not against forgers.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from dal.errors import CorruptDataError, SchemaError
from dal.schema.backups.digest import TableDigest
from dal.schema.connection import EngineName, Place

FORMAT: Final = 1
SUFFIX: Final = ".manifest.json"
_CHECKSUM: Final = "manifest_sha256"


class Manifest(BaseModel):
    """The facts of one backup.

    file           name of the file beside the manifest.  size_bytes, sha256: of that file.
    engine, place  it can be restored to these only.  database, address: what it is a copy of.
    digest_method  how `tables` were computed; another method's digests cannot be compared.
    tables         digest of each table at the moment of the copy.
    ledger         names of the migrations that were applied, in order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = FORMAT
    created_at: datetime
    engine: EngineName
    place: Place
    database: str
    address: str
    server_version: str
    tool_version: str
    file: str
    size_bytes: int
    sha256: str
    digest_method: str
    tables: dict[str, TableDigest]
    ledger: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """As it is written: indented JSON with its own checksum."""
        document = self.model_dump(mode="json")
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        return orjson.dumps({**document, _CHECKSUM: _checksum(document)}, option=options)


def manifest_path(path: Path) -> Path:
    """Where the manifest of a backup's file is."""
    return path.with_name(path.stem + SUFFIX)


def read_manifest(path: Path) -> Manifest:
    """Raises SchemaError: another version of this tool wrote it.  CorruptDataError: it was edited, or is torn."""
    try:
        document = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise _damaged(path) from error
    except OSError as error:
        raise SchemaError(f"{path} cannot be read ({type(error).__name__})", operation="restore") from error
    if not isinstance(document, dict) or document.pop(_CHECKSUM, None) != _checksum(document):
        raise _damaged(path)
    if document.get("format") != FORMAT:
        raise SchemaError(
            f"{path} has format {document.get('format')}; this version reads {FORMAT}", operation="restore"
        )
    try:
        return Manifest.model_validate_json(orjson.dumps(document))
    except ValidationError as error:
        raise _damaged(path) from error


def _checksum(document: dict[str, object]) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _damaged(path: Path) -> CorruptDataError:
    return CorruptDataError(
        f"{path} is not as it was written: edited or damaged; the backup cannot be trusted (nothing was restored)",
        operation="restore",
    )
