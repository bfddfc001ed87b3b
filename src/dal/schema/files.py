"""The migration files: where they are, what their names and headers say, and what their text is.

A file is `NNNN_name.sql`, plain SQL that psql and wrangler read as well. Lines of its header that begin with `-- dal:`
are directives. The wheel carries the files as `dal/_schema`; an editable install reads the repository's `schema/`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from dal.errors import SchemaError
from dal.schema.connection import EngineName
from dal.schema.statements import split_statements

_NAME: Final = re.compile(r"(\d{4})_[a-z0-9]+(?:_[a-z0-9]+)*\.sql")
_DIRECTIVE: Final = re.compile(r"--\s*dal:(\S+)\s*$")
_DIRECTIVES: Final = frozenset({"optional"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One migration file.

    name        its whole file name: its identity in the ledger.
    number      the four digits it begins with.
    optional    the library works without it, one capability less.
    checksum    SHA-256 of its text with LF line ends, in hexadecimal.
    statements  its statements, in order.
    """

    name: str
    number: int
    optional: bool
    checksum: str
    statements: tuple[str, ...]


def schema_directory(engine: EngineName) -> Path:
    """The directory of this engine's migrations. Raises SchemaError where the installation lacks it."""
    package = Path(__file__).resolve().parent.parent
    for root in (package / "_schema", package.parent.parent / "schema"):
        if (root / engine).is_dir():
            return root / engine
    raise SchemaError(f"the installed package holds no schema/{engine}; install it again")


@cache
def migrations(engine: EngineName) -> tuple[Migration, ...]:
    """Every migration of the library for this engine, in the order they are applied."""
    return tuple(_read(path, engine) for path in sorted(schema_directory(engine).glob("*.sql")))


def _read(path: Path, engine: EngineName) -> Migration:
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise SchemaError(f"{path.name}: a migration is named NNNN_lowercase_words.sql")
    text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    directives = _directives(path.name, text)
    try:
        statements = split_statements(text, engine)
    except SchemaError as error:
        raise SchemaError(f"{path.name}: {error.message}") from error
    return Migration(
        name=path.name,
        number=int(name[1]),
        optional="optional" in directives,
        checksum=hashlib.sha256(text.encode()).hexdigest(),
        statements=tuple(statements),
    )


def _directives(name: str, text: str) -> frozenset[str]:
    found: set[str] = set()
    for line in text.split("\n"):
        if not line.startswith("--"):
            break
        directive = _DIRECTIVE.match(line)
        if directive is not None:
            found.add(directive[1])
    if found - _DIRECTIVES:
        raise SchemaError(f"{name}: unknown directive {', '.join(sorted(found - _DIRECTIVES))}")
    return frozenset(found)
