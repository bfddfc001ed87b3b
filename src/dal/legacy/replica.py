"""The moves' side of a legacy directory: that of its image, with a look at the files and a fence in front of them.

Registry, versions, copies and checks are the image's. What is added: a rescan takes in what others wrote; a fence puts
the unit's directories away, waits until nobody has one of their files open, takes in the last of it, and only then lets
the gate close. A unit that was switched away cannot come back: nothing is written to the files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from time import monotonic
from typing import Final

from dal.errors import ConflictError, DalTimeoutError, UnavailableError, UnsupportedError
from dal.legacy.book import Known
from dal.legacy.directories import DIRECTORIES, Directory, FileState, obstacles, put_away, put_back, writers
from dal.legacy.scanning import Scanner
from dal.limits import LEGACY_FENCE_S
from dal.ops import Value
from dal.replica import UNITS, Gate, OneWay, Replica

ONE_WAY: Final = (
    "the source is a directory of legacy files, to which nothing is written back: what the target takes after a "
    "cutover stays there, and no rollback leads back"
)
_PAUSE_S: Final = 0.005


class LegacyReplica(OneWay):
    """See `dal.replica.Replica`: what is not here is the image's.

    turn  the right to look at the files and to move directories; one process has it at a time.
    """

    one_way = ONE_WAY

    def __init__(
        self, root: Path, image: Replica, scanner: Scanner, turn: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        self._root = root
        self._image = image
        self._scanner = scanner
        self._turn = turn

    def __getattr__(self, name: str) -> object:
        return getattr(self._image, name)

    async def install(self, gates: Sequence[Gate]) -> None:
        if any(gate.side == "target" for gate in gates):
            raise UnsupportedError(
                f"{self._root}: a directory of legacy files can only be moved from", operation="install"
            )
        async with self._turn():
            await self._image.install(gates)
            await self._scan()

    async def uninstall(self, *, keep_fence: bool) -> None:
        async with self._turn():
            await self._image.uninstall(keep_fence=keep_fence)
            await self._place()

    async def rescan(self) -> int:
        """While a unit is behind its fence the others wait: the fence has seen to its files, and is short."""
        async with self._turn():
            gates = await self._place()
            if any(gate.role == "fenced" for gate in gates.values()):
                return 0
            return await self._scanner.scan(active(gates))

    async def obstacles(self) -> list[str]:
        found = [*await self._image.obstacles(), *self._scanner.problems.values()]
        for directory in DIRECTORIES:
            found += await asyncio.to_thread(obstacles, self._root, directory)
        return found

    async def change_gate(self, unit: str, *, expect: Mapping[str, Value], change: Mapping[str, Value]) -> bool:
        role = change.get("role")
        if role is None:
            return await self._image.change_gate(unit, expect=expect, change=change)
        async with self._turn():
            gates = await self._image.gates()
            if role == "fenced":
                return await self._fence(unit, gates, expect, change)
            if role == "primary" and unit in gates and gates[unit].role == "replica":
                raise UnsupportedError(f"{unit}: {ONE_WAY}", operation="change_gate")
            is_changed = await self._image.change_gate(unit, expect=expect, change=change)
            await self._place()
            return is_changed

    async def look(self) -> int:
        """Brings the directories to where the gates want them, and takes in what changed; how many rows."""
        async with self._turn():
            return await self._scan()

    async def _scan(self) -> int:
        gates = await self._place()
        return await self._scanner.scan(active(gates))

    async def _place(self) -> Mapping[str, Gate]:
        """The gates; each directory is where its unit's wants it. One of a replica stays where it is."""
        gates = await self._image.gates()
        try:
            await asyncio.to_thread(self._complete, gates)
        except OSError as error:
            raise UnavailableError(f"{self._root}: {error.strerror}: {error.filename}", operation="fence") from error
        return gates

    def _complete(self, gates: Mapping[str, Gate]) -> None:
        for directory in DIRECTORIES:
            gate = gates.get(directory.unit)
            if gate is not None and gate.role == "fenced":
                put_away(self._root, directory)
            elif gate is None or gate.role == "primary":
                put_back(self._root, directory)

    async def _fence(
        self, unit: str, gates: Mapping[str, Gate], expect: Mapping[str, Value], change: Mapping[str, Value]
    ) -> bool:
        gate = gates.get(unit)
        if gate is None or any(getattr(gate, name) != value for name, value in expect.items()):
            return False
        if unit == "users" and (first := sorted({d.unit for d in DIRECTORIES} & active(gates) & gates.keys())):
            raise ConflictError(
                f"users: {', '.join(first)} must be switched before; their files still bring new users",
                operation="fence",
            )
        directories = [directory for directory in DIRECTORIES if directory.unit == unit]
        known = await asyncio.to_thread(self._scanner.before_fence, directories)
        try:
            for directory in directories:
                await asyncio.to_thread(put_away, self._root, directory)
            await self._quiet(unit, directories, known)
            return await self._image.change_gate(unit, expect=expect, change=change)
        except OSError as error:
            raise UnavailableError(
                f"{error.filename}: cannot be put away: {error.strerror}", operation="fence"
            ) from error
        finally:
            await asyncio.shield(self._place())  # where the gate did not close, the directories come back

    async def _quiet(self, unit: str, directories: Sequence[Directory], known: Mapping[str, Known]) -> None:
        """Returns once nobody has a file of these directories open for writing, and all of it is taken in."""
        give_up = monotonic() + LEGACY_FENCE_S
        paths = left = await asyncio.to_thread(self._scanner.paths, directories, known)
        states: dict[str, FileState] = {}
        while left:
            busy = await asyncio.to_thread(writers, left, give_up, states)
            if busy is None:
                break
            if monotonic() > give_up:
                name = self._shown(directories, Path(busy))
                raise DalTimeoutError(
                    f"{unit}: a program has {name} open for writing; end it, or try again", operation="fence"
                )
            left = left[left.index(busy) :]
            await asyncio.sleep(_PAUSE_S)
        # A file that nobody has open, and nobody can open, stays as it looked when it was asked for.
        while await self._scanner.scan([unit], states if len(states) == len(paths) else None, known):
            known = await asyncio.to_thread(self._scanner.before_fence, directories)
            if monotonic() > give_up:
                raise DalTimeoutError(f"{unit}: its files go on changing behind the fence", operation="fence")
        problems = [
            text for path, text in self._scanner.problems.items() if path.startswith(tuple(d.name for d in directories))
        ]
        if problems:
            raise ConflictError(
                f"{unit}: {len(problems)} files cannot be taken in, and would be left behind: {problems[0]}",
                operation="fence",
            )

    def _shown(self, directories: Sequence[Directory], path: Path) -> str:
        """The file by the name that its programs know."""
        names = [
            f"{d.name}/{path.relative_to(d.found(self._root))}"
            for d in directories
            if d.found(self._root) in path.parents
        ]
        return names[0] if names else str(path)


def active(gates: Mapping[str, Gate]) -> set[str]:
    """The units whose files may still change something: all of them where no move is on."""
    if not gates:
        return set(UNITS)
    return {unit for unit, gate in gates.items() if gate.role == "primary"}
