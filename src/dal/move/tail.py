"""The tail of a move: what was copied since the last check, compared registry with registry.

Rows were read back when they were copied, so the registries say what both sides hold; this makes sure that they say the
same. It marks what it has seen, so that little is left to be compared behind a fence, where it marks nothing.
"""

from __future__ import annotations

from collections.abc import Collection

from dal.errors import CorruptDataError, UnavailableError
from dal.limits import MOVE_TAIL_ROWS
from dal.move.relay import together
from dal.replica import Replica


async def compare_tails(tables: Collection[str], primary: Replica, replica: Replica, *, marking: bool = True) -> None:
    """Compares those of the tables together of which anything was copied since they were last compared."""
    copied = await primary.tables_with("copied")
    await together(*[compare_tail(table, primary, replica, marking=marking) for table in tables if table in copied])


async def compare_tail(table: str, primary: Replica, replica: Replica, *, marking: bool = True) -> int:
    """How many entries were found equal, and marked as checked.

    Raises CorruptDataError where both sides hold one version of a row with different content. What changes meanwhile is
    left for the next time; what a cascade took, too, but behind a fence, where that is UnavailableError.
    Cost: three statements for each MOVE_TAIL_ROWS entries.
    """
    compared, after = 0, ""
    while True:
        page = await primary.copied(table, after, MOVE_TAIL_ROWS)
        if not page:
            return compared
        after = page[-1].id
        theirs = {entry.id: entry for entry in await replica.registered(table, [entry.id for entry in page])}
        equal: dict[str, int] = {}
        for entry in page:
            there = theirs.get(entry.id)
            if there is not None and there.version > entry.version:
                continue  # it changed, and was copied, between the two reads
            if there is not None and there.state == "dirty":
                if marking:
                    continue  # what a cascade took: it is sent once more
                raise UnavailableError(f"{table}: a delete took rows of the replica along meanwhile", operation="check")
            if there is None or (there.version, there.deleted, there.hash) != (
                entry.version,
                entry.deleted,
                entry.hash,
            ):
                raise CorruptDataError(
                    f"{table}['{entry.id}']: the registries differ at version {entry.version}; run dal check",
                    operation="check",
                )
            equal[entry.id] = entry.version
        if marking:
            await primary.mark_checked(table, equal)
        compared += len(equal)
        if len(page) < MOVE_TAIL_ROWS:
            return compared
