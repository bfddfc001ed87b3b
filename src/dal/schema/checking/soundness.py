"""What SQLite itself calls broken when it reads its whole file: pages, and indexes that do not hold what the tables do.

Queries go by the indexes, so one that lacks a row hides it, although the row is there; only `integrity_check` compares
them. D1 allows `quick_check` alone, which does not. PostgreSQL has no such question.
"""

from __future__ import annotations

from typing import Final

from dal.schema.backups.identity import is_d1
from dal.schema.connection import Reader
from dal.schema.findings import Finding

#: Of a broken database, how many complaints a finding quotes.
_QUOTED_COMPLAINTS: Final = 5


async def broken_storage(reader: Reader) -> list[Finding]:
    """`damaged`: the file is. `broken-index`: the tables are whole, and an index is not.

    Cost  reading every table and every index of a SQLite file: about eight times as long as its tables alone.
    """
    if reader.engine != "sqlite":
        return []
    if complaints := await _complaints(reader, "quick_check"):
        return [
            Finding(
                rule="damaged",
                severity="error",
                message=complaints,
                advice="restore the last backup, or recover with `sqlite3 … .recover`",
            )
        ]
    # Second, because it reads by the pages that the first one looks at, and breaks off at a damaged one.
    if is_d1(reader) or not (complaints := await _complaints(reader, "integrity_check")):
        return []
    return [
        Finding(
            rule="broken-index",
            severity="error",
            message=complaints,
            advice="the rows are whole: `REINDEX` in the sqlite3 shell builds the indexes anew; look for what wrote "
            "past them, as a copy of the file alone while it was in use",
        )
    ]


async def _complaints(reader: Reader, check: str) -> str:
    """The first of them, in one sentence; empty where it has none."""
    rows = await reader.fetch(f"SELECT {check} FROM pragma_{check}")  # noqa: S608  # one of two names
    found = [" ".join(str(row[0]).split()) for row in rows]
    return "" if found == ["ok"] else f"{check}: {'; '.join(found[:_QUOTED_COMPLAINTS])}"
