"""Where each unit lives now, as an instance of the application knows it: gates, read again before they are too old.

What an instance knows counts for GATE_MAX_AGE_S (GATE_IDLE_AGE_S where no move is on). It is read again beside the
calls once it is half as old, so that a call waits for it only after a pause. Before a cutover the gates say ANNOUNCED
for longer than that; from then on every call looks at both gates first, so no read misses a write that the new primary
took. Without a move, all there is to read is an empty answer of the source; the target is not even opened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from dal.errors import DalError, FencedError, UnavailableError
from dal.limits import FENCED_WAIT_S, GATE_IDLE_AGE_S, GATE_MAX_AGE_S
from dal.move.patience import Patience
from dal.move.recovery import is_overdue, recover
from dal.move.sides import Side, Sides, UnitGates, read_gates

_LOG: Final = logging.getLogger("dal.move")
_FENCED_POLL_S: Final = 0.005


class Routes:
    """The routes of one instance.

    sides        gives both replicas, the target opened when it is first wanted. UnavailableError: it does not answer.
    source_gates reads the source's gates alone.
    """

    def __init__(
        self,
        source_gates: Callable[[], Awaitable[object]],
        sides: Callable[[], Awaitable[Sides]],
    ) -> None:
        self._source_gates = source_gates
        self._sides = sides
        self._patience = Patience()
        self._gates: dict[str, UnitGates] = {}
        #: Units that were moved for good: the source keeps a gate that says so.
        self._retired: frozenset[str] = frozenset()
        #: Units that may be switched at any moment: every call looks first.
        self._changing: frozenset[str] = frozenset()
        self._max_age_s = GATE_IDLE_AGE_S
        self._known_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    def now(self, unit: str) -> UnitGates | None:
        """The unit's gates as last read; None where it is in no move."""
        return self._gates.get(unit)

    @property
    def is_moving(self) -> bool:
        return bool(self._gates)

    def holder(self, unit: str) -> Side:
        """The side that the unit lives on, as last read."""
        if unit in self._retired:
            return "target"
        gates = self._gates.get(unit)
        return "source" if gates is None else gates.holder

    async def for_read(self, unit: str) -> Side:
        """The side to read from."""
        await self._fresh(unit)
        return self.holder(unit)

    async def for_write(self, unit: str) -> Side:
        """The side that takes writes; waits while the unit is fenced, and takes an overdue fence back.

        Raises FencedError when that lasts longer than FENCED_WAIT_S.
        """
        await self._fresh(unit)
        gates = self._gates.get(unit)
        if gates is None or gates.primary is not None:
            return self.holder(unit)
        return await self._wait_for_primary(unit)

    async def _wait_for_primary(self, unit: str) -> Side:
        deadline = monotonic() + FENCED_WAIT_S
        while monotonic() < deadline:
            await self.read_again()
            gates = self._gates.get(unit)
            if gates is None or gates.primary is not None:
                return self.holder(unit)
            await self.take_back_overdue()
        raise FencedError(
            f"{unit}: no store took writes for {FENCED_WAIT_S:g} s; the move is stuck", operation="commit"
        )

    async def take_back_overdue(self) -> None:
        """Ends a fence that has stood for too long, of any unit, or waits a moment; then look at the gates again.

        One behind which the other side is primary already is ended at once: whoever switched the unit may be no more.
        """
        with suppress(DalError):  # a writer holds the store, it is away, or rights are missing: no error of this call
            for gates in self._gates.values():
                is_fenced = "fenced" in (gates.source.role, gates.target.role)
                if is_fenced and await recover(await self._sides(), gates, self._patience):
                    return
        await asyncio.sleep(_FENCED_POLL_S)

    async def _fresh(self, unit: str) -> None:
        age_s = monotonic() - self._known_at
        if age_s > self._max_age_s or unit in self._changing:
            await self.read_again()
        elif age_s > self._max_age_s / 2 and self._reading is None:
            self._start_reading()

    async def read_again(self) -> None:
        """Reads the gates, in a reading that begins after this call did. Callers share it."""
        if self._reading is not None:
            with suppress(DalError):  # it began before: what it found may be older than this call, an error too
                await self._wait_for(self._reading)
        await self._wait_for(self._reading or self._start_reading())

    def _start_reading(self) -> asyncio.Task[None]:
        reading = asyncio.get_running_loop().create_task(self._read())
        self._reading = reading
        reading.add_done_callback(self._has_read)
        return reading

    def _has_read(self, reading: asyncio.Task[None]) -> None:
        if self._reading is reading:
            self._reading = None
        if not reading.cancelled() and (error := reading.exception()) is not None:
            _LOG.debug("gates could not be read: %s", type(error).__name__)

    async def _wait_for(self, reading: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(reading)
        except asyncio.CancelledError:
            if not reading.cancelled():
                raise
            raise UnavailableError("the store is closing", operation="read") from None

    async def _read(self) -> None:
        began = monotonic()
        source = await self._source_gates()
        assert isinstance(source, dict)  # noqa: S101  # Replica.gates gives one
        retired = frozenset(unit for unit, gate in source.items() if gate.phase == "RETIRED" and gate.role != "primary")
        changing = frozenset(unit for unit, gate in source.items() if gate.phase == "ANNOUNCED")
        moving: dict[str, UnitGates] = {}
        if len(retired) < len(source):
            try:
                moving = dict(await read_gates(await self._sides()))
                for found in moving.values():
                    is_overdue(found, self._patience)
                changing = frozenset(u for u, found in moving.items() if found.phase in ("ANNOUNCED", "FENCED"))
            except DalError:
                # The target does not answer, or is not part of the move, which is being started or aborted. Nothing can
                # have been switched while the source is primary by its own gates.
                if any(gate.role != "primary" for gate in source.values()):
                    raise
        self._gates, self._retired, self._changing = moving, retired, changing
        self._max_age_s = GATE_MAX_AGE_S if len(retired) < len(source) else GATE_IDLE_AGE_S
        self._known_at = began

    async def close(self) -> None:
        """Ends a reading that is under way."""
        reading = self._reading
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
