"""The moves' side of a file store: registry, gates and copies, over the journal that its writes go through.

The registry is what registry.py says; what a write changes in it is a part of its commit. Foreign programs, which
write the files themselves, are told from the files (foreign.py) and kept out by moving them away (fencing.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from operator import itemgetter
from secrets import token_hex
from typing import Final, Literal

from dal.backends.file import fencing
from dal.backends.file.copies import apply_copies
from dal.backends.file.errors import reason
from dal.backends.file.image import Image
from dal.backends.file.layout import BACKEND
from dal.backends.file.opened import Opened
from dal.backends.file.registry import (
    STATES,
    Capturing,
    Gated,
    Marked,
    MoveChange,
    Registry,
    Versions,
    first_version,
)
from dal.backends.file.registry_file import CHECKED, COPIED, DIRTY, Known, RegistryFile
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
from dal.store import Stored
from dal.tables import TABLES

_BUCKET_CHARS: Final = 3
_SUMMED: Final = ("live", "dead", "low", "high", "unhashed")
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
        await self._opened.catch_up_with_others()
        return self._opened.image.registry

    # -- the move itself

    async def install(self, gates: Sequence[Gate]) -> None:
        opened = self._opened
        await opened.follow()  # before: who has to read the documents again needs the checkpoint lock too
        async with opened.locks.still_files("install"):
            await self._check_move(gates)
            file: RegistryFile | None = None
            if not opened.image.registry.is_capturing:
                # Beside the writers: all of it is new, and counts with the record that begins the capture.
                file = opened.registry_files.file(token_hex(8))
                await asyncio.to_thread(file.create)
                await opened.foreign.begin()
            async with opened.locks.exclusive("install"):
                await self._check_move(gates)
                present = opened.image.registry
                changes: list[MoveChange] = [] if file is None else [Capturing(file.name)]
                changes += [Gated(g, first_version(g.epoch)) for g in gates if file or g.unit not in present.gates]
                await opened.write(changes, "install")
        await opened.settle("install")
        async with opened.locks.settled_files("install"):
            await self._place()
        await opened.foreign.rescan()  # what others changed before is in no registry

    async def _check_move(self, gates: Sequence[Gate]) -> None:
        for gate in gates:
            for other in (await self._registry()).gates.values():
                if other.move != gate.move:
                    raise ConflictError(
                        f"install: the move {other.move} is installed in {self._opened.layout.root}; "
                        "retire it, or uninstall it",
                        operation="install",
                        backend=BACKEND,
                    )

    async def uninstall(self, *, keep_fence: bool) -> None:
        async with self._opened.locks.exclusive("uninstall"):
            registry = self._opened.image.registry
            if not registry.gates:
                return
            kept = [Gated(gate._replace(phase="RETIRED"), 0) for gate in registry.gates.values()] if keep_fence else []
            await self._opened.write([Capturing(""), *kept], "uninstall")
        async with self._opened.locks.settled_files("uninstall"):
            await self._place()
            await self._opened.foreign.end()

    async def gates(self) -> Mapping[str, Gate]:
        return dict((await self._registry()).gates)

    async def change_gate(self, unit: str, *, expect: Mapping[str, Value], change: Mapping[str, Value]) -> bool:
        for name in (*expect, *change):
            if name not in Gate._fields:
                raise ValueError(f"a gate has no {name}")
        if change.get("role") == "fenced":
            return await self._fence(unit, expect, change)
        async with self._opened.locks.exclusive("change_gate"):
            is_changed = await self._change_gate(unit, expect, change)
        if is_changed and "role" in change:
            with suppress(DalTimeoutError):  # the checkpoint that is under way, or the next one, does it
                async with self._opened.locks.settled_files("change_gate", FENCE_LOCK_TIMEOUT_S):
                    await self._place()
        return is_changed

    async def _fence(self, unit: str, expect: Mapping[str, Value], change: Mapping[str, Value]) -> bool:
        async with self._opened.locks.settled_files("change_gate", FENCE_LOCK_TIMEOUT_S):
            if not self._meets(unit, expect):
                return False
            await asyncio.to_thread(fencing.put_away, self._opened.layout, unit)
            try:
                return await self._change_gate(unit, expect, change)
            finally:
                await self._place()  # what others had open they may still write to: see `rescan`

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
            known = image.registry.many(table, ids)
            return [row_id for row_id in ids if row_id not in known]

        found = await self._reader.entries(table, choose)
        entries = [entry._replace(version=version) for entry in found if not entry.version and entry.row is not None]
        return Unregistered(entries, ids[-1] if len(ids) == limit else "")

    async def seed(self, table: str, after: str, limit: int) -> str:
        ids = await self._reader.behind(table, after, limit)
        registry = await self._registry()
        known = registry.many(table, ids)
        unknown = [row_id for row_id in ids if row_id not in known]
        gate = registry.gates.get(UNIT_OF[table])
        if unknown and registry.file is not None and gate is not None:
            present = await self._reader.present(table, unknown)
            # What was written since it was read has an entry in the journal, which counts.
            await asyncio.to_thread(registry.file.seed, table, sorted(present), first_version(gate.epoch))
        return ids[-1] if len(ids) == limit else ""

    async def dirty(self, table: str, limit: int) -> list[Entry]:
        await self._registry()
        passed_over: set[str] = set()

        def choose(image: Image) -> list[str]:
            waiting = (row_id for row_id in image.registry.dirty(table) if row_id not in passed_over)
            return list(islice(waiting, limit))

        while limit > 0:
            found = await self._reader.entries(table, choose)
            image = self._opened.image
            readable = [entry for entry in found if not is_unreadable(image, entry)]
            if readable:
                return readable
            if not found:
                break
            passed_over.update(entry.id for entry in found)
            if len(found) < limit:
                raise unreadable(image, found[0])
        return []

    async def entries(self, table: str, ids: Sequence[str]) -> list[Entry]:
        found = await self._reader.entries(table, lambda _: ids)
        for entry in found:
            if is_unreadable(self._opened.image, entry):
                raise unreadable(self._opened.image, entry)
        return found

    async def stored(self, table: str, ids: Sequence[str]) -> Stored:
        return Stored([entry.row for entry in await self.entries(table, ids) if entry.row is not None], {})

    async def acknowledge(self, copied: Sequence[Copied]) -> None:
        registry = await self._registry()
        recent = [done for done in copied if done.id in registry.recent[done.table]]
        settled = [done for done in copied if done.id not in registry.recent[done.table]]
        if recent:
            async with self._opened.locks.exclusive("acknowledge"):
                settled += await self._acknowledge(recent)
        if settled and registry.file is not None:
            await asyncio.to_thread(registry.file.acknowledge, settled)

    async def _acknowledge(self, copied: Sequence[Copied]) -> list[Copied]:
        """Marks what the journal has of these; the others, which a checkpoint has taken up meanwhile."""
        recent, settled = self._opened.image.registry.recent, list[Copied]()
        marked: dict[str, list[tuple[str, Known]]] = {}
        for done in copied:
            known = recent[done.table].get(done.id)
            if known is None:
                settled.append(done)
            elif known.version == done.version and known.state == DIRTY:
                state = CHECKED if is_first(done.version) else COPIED
                entry = Known(done.version, done.hash is None, state, done.hash)
                marked.setdefault(done.table, []).append((done.id, entry))
        await self._opened.write([Marked(table, entries) for table, entries in marked.items()], "acknowledge")
        return settled

    async def tables_with(self, state: Literal["dirty", "copied"]) -> frozenset[str]:
        return (await self._registry()).tables_with(state)

    async def backlog(self) -> Mapping[str, Backlog]:
        registry = await self._registry()
        recent = {name: dict(entries) for name, entries in registry.recent.items()}
        found = {name: [0, 0, 0] for name in TABLES}
        if registry.file is not None:
            found = await asyncio.to_thread(registry.file.counts, recent)
        for name, entries in recent.items():
            found[name][2] += len(entries)
            for known in entries.values():
                if known.state != CHECKED:
                    found[name][known.state == COPIED] += 1
        return {name: Backlog(*counts) for name, counts in found.items()}

    async def raise_versions(self, table: str, ids: Sequence[str]) -> int:
        distinct = sorted(set(ids))
        if distinct:
            before = (await self._registry()).many(table, distinct)
            present = await self._reader.present(table, distinct)
            async with self._opened.locks.exclusive("raise_versions"):
                if not self._opened.image.registry.is_captured(table):
                    return len(distinct)
                after = self._opened.image.registry.many(table, distinct)
                changed = {row_id for row_id in distinct if _version(after, row_id) != _version(before, row_id)}
                if changed:  # since their rows were read, which writers need not wait for
                    present = (present - changed) | await self._reader.present(table, sorted(changed))
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

    async def total(self, table: str) -> Bucket:
        buckets = await self.digest(table)
        live, dead, low, high, unhashed = (
            sum(map(itemgetter(place), buckets)) for place in map(Bucket._fields.index, _SUMMED)
        )
        return Bucket("", live, dead, low, high, max([bucket.newest for bucket in buckets], default=0), unhashed)

    async def digest(self, table: str) -> list[Bucket]:
        registry = await self._registry()
        recent = dict(registry.recent[table])
        sums: dict[str, Bucket] = {}
        if registry.file is not None:
            found = await asyncio.to_thread(registry.file.sums, table, _BUCKET_CHARS, recent)
            sums = {bucket[0]: Bucket(*bucket) for bucket in found}
        for row_id, known in recent.items():
            name = row_id[-_BUCKET_CHARS:]
            sums[name] = _added(sums.get(name, Bucket(name, 0, 0, 0, 0, 0, 0)), known)
        return list(sums.values())

    async def bucket(self, table: str, buckets: Sequence[str]) -> list[Registered]:
        wanted, registry = set(buckets), await self._registry()
        recent = dict(registry.recent[table])
        found = [(row_id, known) for row_id, known in recent.items() if row_id[-_BUCKET_CHARS:] in wanted]
        if registry.file is not None:
            found += await asyncio.to_thread(registry.file.in_buckets, table, wanted, recent)
        return [_registered(table, row_id, known) for row_id, known in found]

    async def registered(self, table: str, ids: Sequence[str]) -> list[Registered]:
        known = (await self._registry()).many(table, ids)
        return [_registered(table, row_id, known[row_id]) for row_id in dict.fromkeys(ids) if row_id in known]

    async def copied(self, table: str, after: str, limit: int) -> list[Registered]:
        found = (await self._registry()).copied(table, after, limit)
        return [_registered(table, row_id, known) for row_id, known in found]

    async def mark_checked(self, table: str, versions: Mapping[str, int]) -> None:
        registry = await self._registry()
        recent = {row_id: version for row_id, version in versions.items() if row_id in registry.recent[table]}
        settled = [(row_id, version) for row_id, version in versions.items() if row_id not in recent]
        if recent:
            async with self._opened.locks.exclusive("mark_checked"):
                present = self._opened.image.registry.recent[table]
                settled += [(row_id, version) for row_id, version in recent.items() if row_id not in present]
                entries = [
                    (row_id, present[row_id]._replace(state=CHECKED))
                    for row_id, version in recent.items()
                    if row_id in present and present[row_id][:3] == (version, present[row_id].deleted, COPIED)
                ]
                await self._mark("mark_checked", table, entries)
        if settled and registry.file is not None:
            await asyncio.to_thread(registry.file.check, table, settled)

    # -- what a plan and a cutover ask

    async def oldest_writer_s(self) -> float:
        """0: a writer holds the store's lock, and `change_gate` waits for it."""
        return 0.0

    async def obstacles(self) -> list[str]:
        opened = self._opened
        return [*opened.image.problems(), *opened.journal.problems, *opened.foreign.problems.values()]


def _version(entries: Mapping[str, Known], row_id: str) -> int:
    return entries[row_id].version if row_id in entries else 0


def _registered(table: str, row_id: str, known: Known) -> Registered:
    return Registered(table, row_id, known.version, known.deleted, STATES[known.state], known.hash)


def _added(sums: Bucket, known: Known) -> Bucket:
    """The bucket with one entry more."""
    bucket, live, dead, low, high, newest, unhashed = sums
    hash_ = known.hash or 0
    return Bucket(
        bucket,
        live + (not known.deleted),
        dead + known.deleted,
        low + (hash_ & _LOW_BITS),
        high + (hash_ >> 32),
        max(newest, known.version),
        unhashed + (not known.deleted and known.hash is None),
    )
