"""The moves' side of a file store: registry, gates and copies, over the journal that its writes go through.

The registry is what every process has in memory; what changes it is a commit like any other. Foreign programs, which
write the files themselves, are told from the files (foreign.py) and kept out by moving them away (fencing.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from heapq import nsmallest
from typing import Final

from dal.backends.file import fencing
from dal.backends.file.copies import apply_copies
from dal.backends.file.errors import reason
from dal.backends.file.image import Image
from dal.backends.file.index import Index
from dal.backends.file.layout import BACKEND
from dal.backends.file.opened import Opened
from dal.backends.file.registry import (
    CHECKED,
    COPIED,
    DIRTY,
    STATES,
    Capturing,
    Gated,
    Known,
    Marked,
    MoveChange,
    Registry,
    Versions,
    first_version,
)
from dal.backends.file.rowreader import RowReader, is_unreadable, unreadable
from dal.errors import ConflictError, DalTimeoutError
from dal.limits import FENCE_LOCK_TIMEOUT_S
from dal.ops import Value
from dal.replica import (
    UNIT_OF,
    Applied,
    Backlog,
    Bucket,
    Copied,
    Entry,
    Gate,
    Registered,
    Unregistered,
    is_first,
)
from dal.tables import TABLES

_MAX_LOOKS: Final = 5
_BUCKET_CHARS: Final = 3
_LOW_BITS: Final = (1 << 32) - 1
_log = logging.getLogger("dal.file")


class FileReplica:
    """The Replica of a file store.

    opened  what the store is while it is open; raises UnavailableError when it is not.
    """

    def __init__(self, opened: Callable[[], Opened]) -> None:
        self._get = opened

    @property
    def _opened(self) -> Opened:
        return self._get()

    @property
    def _reader(self) -> RowReader:
        return RowReader(self._opened)

    async def _registry(self) -> Registry:
        """The registry as of now."""
        if self._opened.journal.has_news():
            await self._opened.follow()
        return self._opened.image.registry

    # -- the move itself

    async def install(self, gates: Sequence[Gate]) -> None:
        async with self._opened.settled_files("install"):
            registry = self._opened.image.registry
            for gate in gates:
                for other in registry.gates.values():
                    if other.move != gate.move:
                        raise ConflictError(
                            f"install: the move {other.move} is installed in {self._opened.layout.root}; "
                            "retire it, or uninstall it",
                            operation="install",
                            backend=BACKEND,
                        )
            changes: list[MoveChange] = []
            if not registry.is_capturing:
                changes.append(Capturing(True))
                await asyncio.to_thread(_forget_documents, self._opened.image.index)
            changes += [Gated(g, first_version(g.epoch)) for g in gates if g.unit not in registry.gates]
            await self._opened.write(changes, "install")
        await self._opened.settle("install")
        await self._opened.foreign.rescan(is_first=True)  # what others changed before is in no registry

    async def uninstall(self, *, keep_fence: bool) -> None:
        async with self._opened.exclusive("uninstall"):
            registry = self._opened.image.registry
            if not registry.gates:
                return
            kept = [Gated(gate._replace(phase="RETIRED"), 0) for gate in registry.gates.values()] if keep_fence else []
            await self._opened.write([Capturing(False), *kept], "uninstall")
        async with self._opened.settled_files("uninstall"):
            await self._place()

    async def gates(self) -> Mapping[str, Gate]:
        return dict((await self._registry()).gates)

    async def change_gate(self, unit: str, *, expect: Mapping[str, Value], change: Mapping[str, Value]) -> bool:
        for name in (*expect, *change):
            if name not in Gate._fields:
                raise ValueError(f"a gate has no {name}")
        if change.get("role") == "fenced":
            return await self._fence(unit, expect, change)
        async with self._opened.exclusive("change_gate"):
            is_changed = await self._change_gate(unit, expect, change)
        if is_changed and "role" in change:
            with suppress(DalTimeoutError):  # the checkpoint that is under way, or the next one, does it
                async with self._opened.settled_files("change_gate", FENCE_LOCK_TIMEOUT_S):
                    await self._place()
        return is_changed

    async def _fence(self, unit: str, expect: Mapping[str, Value], change: Mapping[str, Value]) -> bool:
        async with self._opened.settled_files("change_gate", FENCE_LOCK_TIMEOUT_S):
            if not self._meets(unit, expect):
                return False
            await asyncio.to_thread(fencing.put_away, self._opened.layout, unit)
            try:
                await self._change_gate(unit, expect, change)
            finally:
                await self._place()
            for _ in range(_MAX_LOOKS):  # what others had open they may still have written to
                if not await self._opened.foreign.look(await self._opened.foreign.differing()):
                    break
            return True

    async def _change_gate(self, unit: str, expect: Mapping[str, Value], change: Mapping[str, Value]) -> bool:
        if not self._meets(unit, expect):
            return False
        changed = self._opened.image.registry.gates[unit]._replace(**change)  # type: ignore[arg-type]
        counter = first_version(changed.epoch) if change.get("role") == "primary" and "epoch" in change else 0
        await self._opened.write([Gated(changed, counter)], "change_gate")
        return True

    def _meets(self, unit: str, expect: Mapping[str, Value]) -> bool:
        gate = self._opened.image.registry.gates.get(unit)
        return gate is not None and all(getattr(gate, name) == value for name, value in expect.items())

    async def _place(self) -> None:
        """Brings each unit's directory to where its gate wants it; the caller holds both locks."""
        try:
            await asyncio.to_thread(fencing.complete, self._opened.layout, self._opened.image.registry)
        except OSError as error:  # the gate counts; whoever opens the store next brings it there
            _log.warning("%s: %s", self._opened.layout.root, reason(error))

    # -- the registry

    async def unregistered(self, table: str, after: str, limit: int) -> Unregistered:
        ids = await self._reader.behind(table, after, limit)
        gate = (await self._registry()).gates.get(UNIT_OF[table])
        version = first_version(0 if gate is None else gate.epoch)

        def choose(image: Image) -> list[str]:
            known = image.registry.tables[table]
            return [row_id for row_id in ids if row_id not in known]

        found = await self._reader.entries(table, choose)
        entries = [entry._replace(version=version) for entry in found if not entry.version and entry.row is not None]
        return Unregistered(entries, ids[-1] if len(ids) == limit else "")

    async def seed(self, table: str, after: str, limit: int) -> str:
        ids = await self._reader.behind(table, after, limit)
        known = (await self._registry()).tables[table]
        unknown = [row_id for row_id in ids if row_id not in known]
        if unknown:
            present = await self._reader.present(table, unknown)
            async with self._opened.exclusive("seed"):
                registry = self._opened.image.registry
                gate = registry.gates.get(UNIT_OF[table])
                entry = Known(first_version(0 if gate is None else gate.epoch), False, DIRTY, None)
                # What was deleted since it was read has an entry by now.
                known = registry.tables[table]
                new = [(row_id, entry) for row_id in unknown if row_id in present and row_id not in known]
                await self._mark("seed", table, new)
        return ids[-1] if len(ids) == limit else ""

    async def dirty(self, table: str, limit: int) -> list[Entry]:
        registry = await self._registry()
        if not registry.waiting[table] or limit < 1:
            return []
        skipped: set[str] = set()

        def choose(waiting: Iterable[str]) -> list[str]:
            return [row_id for _, row_id in zip(range(limit), (i for i in waiting if i not in skipped), strict=False)]

        while True:
            found = await self._reader.entries(table, lambda image: choose(image.registry.waiting[table]))
            image = self._opened.image
            readable = [entry for entry in found if not is_unreadable(image, entry)]
            if readable or not found:
                return readable
            skipped.update(entry.id for entry in found)
            if len(skipped) >= len(image.registry.waiting[table]):
                raise unreadable(image, found[0])

    async def entries(self, table: str, ids: Sequence[str]) -> list[Entry]:
        found = await self._reader.entries(table, lambda _: ids)
        for entry in found:
            if is_unreadable(self._opened.image, entry):
                raise unreadable(self._opened.image, entry)
        return found

    async def scan(self, table: str, after: str, limit: int) -> list[Entry]:
        found: list[Entry] = []
        while len(found) < limit:
            wanted = limit - len(found)
            ids = await self._reader.behind(table, after, wanted)
            dead = [row_id for row_id in (await self._registry()).dead[table] if row_id > after]
            ids = nsmallest(wanted, {*ids, *dead})
            if not ids:
                break
            page = await self._reader.entries(table, lambda _, ids=ids: ids)  # type: ignore[misc]
            found += [entry for entry in page if entry.version or entry.row is not None]
            after = ids[-1]
        return found

    async def acknowledge(self, copied: Sequence[Copied]) -> None:
        if not copied:
            return
        async with self._opened.exclusive("acknowledge"):
            registry = self._opened.image.registry
            marked: dict[str, list[tuple[str, Known]]] = {}
            for table, row_id, version, hash_ in copied:
                known = registry.tables[table].get(row_id)
                if known is None and is_first(version):
                    known = Known(version, False, DIRTY, None)
                if known is not None and known.version == version and known.state == DIRTY:
                    state = CHECKED if is_first(version) else COPIED
                    marked.setdefault(table, []).append((row_id, Known(version, hash_ is None, state, hash_)))
            await self._opened.write([Marked(table, entries) for table, entries in marked.items()], "acknowledge")

    async def backlog(self) -> Mapping[str, Backlog]:
        registry = await self._registry()
        return {
            name: Backlog(len(registry.waiting[name]), len(registry.copied[name]), len(registry.tables[name]))
            for name in TABLES
        }

    async def raise_versions(self, table: str, ids: Sequence[str]) -> int:
        distinct = sorted(set(ids))
        if distinct:
            async with self._opened.exclusive("raise_versions"):
                if not self._opened.image.registry.is_captured(table):
                    return len(distinct)
                present = await self._reader.present(table, distinct)
                versions = Versions(self._opened.image.registry)
                entries = [
                    (row_id, Known(versions.next(table), row_id not in present, DIRTY, None)) for row_id in distinct
                ]
                await self._mark("raise_versions", table, entries)
        return len(distinct)

    async def rescan(self) -> int:
        await self._registry()
        return await self._opened.foreign.rescan()

    async def _mark(self, operation: str, table: str, entries: Sequence[tuple[str, Known]]) -> None:
        if entries:
            await self._opened.write([Marked(table, entries)], operation)

    # -- copies

    async def apply(self, entries: Sequence[Entry]) -> Applied:
        return await apply_copies(self._opened, entries)

    # -- checking

    async def digest(self, table: str) -> list[Bucket]:
        known = list((await self._registry()).tables[table].items())
        return await asyncio.to_thread(_added_up, known)

    async def bucket(self, table: str, buckets: Sequence[str]) -> list[Registered]:
        wanted, registry = set(buckets), await self._registry()
        return [
            _registered(table, row_id, known)
            for row_id, known in registry.tables[table].items()
            if row_id[-_BUCKET_CHARS:] in wanted
        ]

    async def registered(self, table: str, ids: Sequence[str]) -> list[Registered]:
        known = (await self._registry()).tables[table]
        return [_registered(table, row_id, known[row_id]) for row_id in dict.fromkeys(ids) if row_id in known]

    async def copied(self, table: str, after: str, limit: int) -> list[Registered]:
        registry = await self._registry()
        ids = [row_id for row_id in registry.copied[table] if row_id > after]
        page = await asyncio.to_thread(nsmallest, limit, ids)
        known = self._opened.image.registry.tables[table]
        found = [_registered(table, row_id, known[row_id]) for row_id in page if row_id in known]
        return [entry for entry in found if entry.state == "copied"] if len(page) < limit else found

    async def mark_checked(self, table: str, versions: Mapping[str, int]) -> None:
        if not versions:
            return
        async with self._opened.exclusive("mark_checked"):
            known = self._opened.image.registry.tables[table]
            entries = [
                (row_id, known[row_id]._replace(state=CHECKED))
                for row_id, version in versions.items()
                if row_id in known and known[row_id].version == version and known[row_id].state == COPIED
            ]
            await self._mark("mark_checked", table, entries)

    # -- what a plan and a cutover ask

    async def oldest_writer_s(self) -> float:
        """0: a writer holds the store's lock, and `change_gate` waits for it."""
        return 0.0

    async def obstacles(self) -> list[str]:
        opened = self._opened
        return [*opened.image.problems(), *opened.journal.problems, *opened.foreign.problems.values()]


def _forget_documents(index: Index) -> None:
    with index.writer() as writer:
        writer.forget_documents()
        writer.commit(index.settled())


def _registered(table: str, row_id: str, known: Known) -> Registered:
    return Registered(table, row_id, known.version, known.deleted, STATES[known.state], known.hash)


def _added_up(entries: Sequence[tuple[str, Known]]) -> list[Bucket]:
    sums: dict[str, list[int]] = {}
    for row_id, (version, deleted, _, hash_) in entries:
        bucket = row_id[-_BUCKET_CHARS:]
        found = sums.get(bucket)
        if found is None:
            found = sums[bucket] = [0, 0, 0, 0, 0, 0]
        if deleted:
            found[1] += 1
        else:
            found[0] += 1
            if hash_ is None:
                found[5] += 1
        if hash_ is not None:
            found[2] += hash_ & _LOW_BITS
            found[3] += hash_ >> 32
        if version > found[4]:
            found[4] = version
    return [Bucket(bucket, *found) for bucket, found in sums.items()]
