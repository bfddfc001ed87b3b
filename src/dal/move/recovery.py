"""Ending what a mover left half done, by whoever comes by: another mover, or any instance of the application.

A fence that has stood for too long is taken back. The order makes it safe: first the epoch is burnt in the store that
was to be activated, so that an activation still on its way comes too late, and only then the old store is opened again.
A switch that did happen is completed instead. Every step is a compare-and-set; any number may do this at once.
"""

from __future__ import annotations

from typing import Final

from dal.limits import GATE_MAX_AGE_S, MOVE_FENCE_S
from dal.move.patience import Patience
from dal.move.sides import Side, Sides, UnitGates, other
from dal.ops import Value
from dal.replica import Gate, Phase, Replica

#: The phase in which a unit lives whose primary is on that side, outside a cutover.
SETTLED: dict[Side, Phase] = {"source": "VERIFIED", "target": "SWITCHED"}
#: In the notes of a unit: the move was seen for so long that every instance knows of it.
KNOWN: Final = "known"


async def recover(sides: Sides, gates: UnitGates, patience: Patience) -> bool:
    """Completes or takes back an unfinished cutover of the unit, where it is time to; whether anything was changed.

    patience  of whoever asks: what it has seen for long enough is overdue.
    """
    overdue = is_overdue(gates, patience)
    primary = gates.primary
    if primary is not None:
        behind, at = gates.at(other(primary)), gates.at(primary)
        if behind.role == "fenced":
            return await complete(sides, other(primary), behind, at)
        if at.phase == "ANNOUNCED" and overdue:
            return await withdraw(sides.at(primary), at)
        return False
    fenced = gates.fenced
    if fenced is None or not overdue:
        return False
    return await take_back(sides, fenced, gates.at(fenced))


def is_overdue(gates: UnitGates, patience: Patience) -> bool:
    """Whether the unit's announcement or fence is overdue: it is waited out from the first look on, so ask at each."""
    gate = gates.at(gates.holder)
    mark = (gate.move, gate.side, gate.epoch, gate.turn, gate.role, gate.phase)
    return not patience.left_s(gate.unit, mark, MOVE_FENCE_S if gate.role == "fenced" else announced_s())


def announced_s() -> float:
    """For how long an announcement stands: until every instance has seen it, and a fence had time to come down."""
    return GATE_MAX_AGE_S + 2 * MOVE_FENCE_S + 2


def announced(gate: Gate) -> dict[str, Value]:
    """What must still hold of an announced gate: its own announcement, for another has not been waited out yet."""
    return {"role": "primary", "epoch": gate.epoch, "phase": "ANNOUNCED", "turn": gate.turn}


async def withdraw(store: Replica, gate: Gate) -> bool:
    """Takes this announcement back, if it still stands."""
    return await store.change_gate(gate.unit, expect=announced(gate), change={"phase": SETTLED[gate.side]})


async def complete(sides: Sides, side: Side, old: Gate, new: Gate) -> bool:
    """Makes the old primary the replica of the one that was activated: the last step of a cutover.

    Only where that one's epoch is the later: gates of different moments can also show the fence of the next cutover
    beside the primary of the last.
    """
    return new.epoch > old.epoch and await sides.at(side).change_gate(
        old.unit,
        expect={"role": "fenced", "epoch": old.epoch},
        change={
            "role": "replica",
            "phase": SETTLED[other(side)],
            "next_epoch": new.epoch + 1,
            "cursor": "",
        },
    )


async def take_back(sides: Sides, side: Side, old: Gate) -> bool:
    """Opens the fenced store again, unless the other one was activated: then that is completed."""
    store, peer = sides.at(side), sides.at(other(side))
    await peer.change_gate(
        old.unit,
        expect={"role": "replica", "next_epoch": old.epoch + 1},
        change={"next_epoch": old.epoch + 2},
    )
    new = (await peer.gates())[old.unit]
    if new.role == "primary":
        return await complete(sides, side, old, new)
    if new.next_epoch < old.epoch + 2:
        return False  # the gate we fenced by is not the one that stands there now: look again
    return await store.change_gate(
        old.unit,
        expect={"role": "fenced", "epoch": old.epoch},
        change={"role": "primary", "epoch": new.next_epoch - 1, "phase": SETTLED[side]},
    )
