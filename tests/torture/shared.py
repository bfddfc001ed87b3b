"""What forked processes tell each other without a message: numbers in shared memory that only grow.

Each writer raises numbers in slots of its own once a write is acknowledged; a reader that looks at a slot and then
reads the row may find the same number or a later one, never an earlier one.
"""

from __future__ import annotations

import mmap
import struct
from random import Random
from typing import Final
from uuid import UUID, uuid5

#: Slots of one process of writers.
SLOTS: Final = 256
PROCESSES: Final = 2048
KINDS: Final = ("memory", "users", "files", "chats")
_NAMESPACE: Final = UUID("0191b2c3-d4e5-7f60-8a1b-2c3d4e5f6071")


class Counters:
    """Numbers by kind, process and slot."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * SLOTS * PROCESSES * len(KINDS) + 8)

    def set(self, kind: str, process: int, slot: int, value: int) -> None:
        struct.pack_into("=q", self._memory, self._place(kind, process, slot), value)

    def get(self, kind: str, process: int, slot: int) -> int:
        value: int = struct.unpack_from("=q", self._memory, self._place(kind, process, slot))[0]
        return value

    def some(self, kind: str, dice: Random) -> tuple[int, int] | None:
        """A process and a slot that has a number; None where a look found none."""
        process = dice.randrange(self.processes) if self.processes else 0
        taken = [slot for slot in range(SLOTS) if self.get(kind, process, slot)]
        return (process, dice.choice(taken)) if taken else None

    @property
    def processes(self) -> int:
        """How many processes of writers there have been."""
        count: int = struct.unpack_from("=q", self._memory, 8 * SLOTS * PROCESSES * len(KINDS))[0]
        return count

    def add_process(self) -> int:
        """The number of one more; the supervisor alone calls this."""
        number = self.processes
        if number == PROCESSES:
            raise OverflowError(f"more than {PROCESSES} processes of writers")
        struct.pack_into("=q", self._memory, 8 * SLOTS * PROCESSES * len(KINDS), number + 1)
        return number

    def highest(self, kind: str, slot: int) -> int:
        """The highest number of any process in this slot."""
        return max((self.get(kind, process, slot) for process in range(self.processes)), default=0)

    def _place(self, kind: str, process: int, slot: int) -> int:
        return 8 * ((KINDS.index(kind) * PROCESSES + process) * SLOTS + slot)


def row_id(*parts: object) -> str:
    """An id that every process can tell from these parts; ids need not be of one version."""
    return str(uuid5(_NAMESPACE, "/".join(map(str, parts))))
