"""Where a database stands with the library's own schema: the light look that a store takes when it opens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dal.errors import SchemaError
from dal.schema import ledger
from dal.schema.connection import Reader
from dal.schema.files import library_set
from dal.schema.ledger import Applied
from dal.schema.ordering import number_in
from dal.schema.plan import Mine
from dal.urls import SCHEMA_UP, schema_up


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaStatus:
    """Where a database stands.

    applied  the ledger, in order, other teams' migrations included.
    pending  the library's migrations that are not applied, in order; `required` are those it cannot work without.
    newer    applied migrations numbered above every one this library knows: it is older than the database.
    empty    the database holds no table at all.
    """

    address: str
    applied: tuple[Applied, ...]
    pending: tuple[str, ...]
    required: tuple[str, ...]
    newer: tuple[str, ...]
    empty: bool
    version: str

    def require_usable(self) -> None:
        """Raises SchemaError where this library must not work with the database; it says what to do."""
        self.require_known()
        if not self.required:
            return
        found = f"is at {self.version} and lacks {', '.join(self.required)}" if self.version else "holds no dal schema"
        scheme, _, place = self.address.partition(":")
        how = schema_up(scheme, Path(place)) if scheme == "sqlite" else SCHEMA_UP
        raise SchemaError(f"{self.address} {found}; {how}", operation="open")

    def require_known(self) -> None:
        """Raises SchemaError where the database is newer than the library."""
        if self.newer:
            raise SchemaError(
                f"{self.address} holds {', '.join(self.newer)}, which this library does not know; "
                "upgrade the library (nothing was written)",
                operation="open",
            )


async def status(reader: Reader) -> SchemaStatus:
    """Where the database stands, in two round trips. Writes nothing."""
    found = await ledger.read(reader)
    known = library_set(reader.engine)
    mine = Mine(known, found)
    pending = [m for m in known.migrations if m.name not in mine.applied]
    ours = [m.name for m in known.migrations if m.name in mine.applied]
    highest = max(m.number for m in known.migrations)
    return SchemaStatus(
        address=reader.address,
        applied=found.applied,
        pending=tuple(m.name for m in pending),
        required=tuple(m.name for m in pending if not m.directives.optional),
        newer=tuple(name for name in (*mine.applied, *mine.unknown) if number_in(name) > highest),
        empty=not found.tables,
        version=ours[-1].partition(".")[0] if ours else "",
    )
