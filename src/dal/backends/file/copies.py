"""Copies of a move applied to a file store: only what is newer, all of it or nothing, in one journal record.

Everything happens under the store's lock, so the versions that were read still hold when the rows are written. What a
unique key or a missing parent refuses is exchanged among the rows that came, or named for the caller to bring along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from dal.backends import replication
from dal.backends.file.layout import BACKEND
from dal.backends.file.opened import Opened
from dal.backends.file.registry import Marked
from dal.backends.file.registry_file import CHECKED, Known
from dal.backends.rows import ID, Rows
from dal.errors import AlreadyExistsError, ConflictError, MissingReferenceError
from dal.limits import APPLY_TRIES
from dal.replica import Applied, Entry, Key


async def apply_copies(opened: Opened, entries: Sequence[Entry]) -> Applied:
    """See `dal.replica`."""
    async with opened.locks.exclusive("apply"):
        registry = opened.image.registry
        versions: dict[Key, int] = {}
        for table, group in groupby(entries, key=attrgetter("table")):
            found = registry.many(table, [entry.id for entry in group])
            versions.update((Key(table, row_id), known.version) for row_id, known in found.items())
        won = replication.winners(entries, versions)
        if not won:
            return Applied()
        marked, replacing, parked = _marked(won), False, frozenset[Key]()
        for _ in range(APPLY_TRIES):
            ops = replication.operations(won, known=versions.keys(), replacing=replacing, parked=parked)
            try:
                await opened.carry_out(ops, "apply", marked, with_fenced=True)
            except MissingReferenceError:
                wanted = replication.parents(won)
                present = [key for key in wanted if opened.image.tables[key.table].get(key.id) is not None]
                return Applied(blockers=tuple(replication.missing(wanted, present, won)))
            except AlreadyExistsError:
                holders, keys = _holders(opened.image.tables, won), {entry.key for entry in won}
                blockers = sorted((holders - keys) | replication.rivals(won))
                if blockers:
                    return Applied(blockers=tuple(blockers))
                # Rows that hold each other's keys are all here; or a row was there that the registry did not know.
                replacing, parked = True, parked | (holders & keys)
            else:
                return Applied(won)
    raise ConflictError("apply: the rows refuse each other; see the check", operation="apply", backend=BACKEND)


def _marked(won: Sequence[Entry]) -> list[Marked]:
    found: dict[str, list[tuple[str, Known]]] = {}
    for entry in won:
        is_gone = entry.row is None
        known = Known(entry.version, is_gone, CHECKED, None if is_gone else entry.hash)
        found.setdefault(entry.table, []).append((entry.id, known))
    return [Marked(table, entries) for table, entries in found.items()]


def _holders(tables: Mapping[str, Rows], won: Sequence[Entry]) -> set[Key]:
    """Rows that hold a unique key which another row is to have."""
    found: set[Key] = set()
    for (table, columns), claims in replication.claims(won).items():
        for key, values in claims:
            row = tables[table].find(columns, values)
            if row is not None and row[ID] != key.id:
                found.add(Key(table, row[ID]))
    return found
