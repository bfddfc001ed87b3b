"""How a move ends: retired, once its units live on the target for good, or aborted, while they live on the source.

Both can be run again after a crash at any moment.
"""

from __future__ import annotations

from dal.errors import ConflictError
from dal.move.sides import Sides, read_gates
from dal.replica import Replica


async def retire(sides: Sides) -> None:
    """Drops registry and triggers on both stores. The source keeps its rows, and refuses writes from then on.

    Raises ConflictError unless every unit's primary is the target and nothing is left to copy back: what the source
    keeps is then a backup as of now.
    """
    source = await sides.source.gates()
    if source and all(gate.phase == "RETIRED" for gate in source.values()):
        await sides.target.uninstall(keep_fence=False)  # an earlier call ended half-way
        return
    gates = await read_gates(sides)
    if not gates:
        raise ConflictError("no move is on", operation="retire")
    behind = [unit for unit, found in gates.items() if found.primary != "target"]
    if behind:
        raise ConflictError(
            f"{', '.join(behind)}: not switched yet; switch every unit, or abort the move", operation="retire"
        )
    dirty = sum(backlog.dirty for backlog in (await sides.target.backlog()).values())
    if dirty:
        raise ConflictError(
            f"{dirty} rows were not copied back to the source yet; run `dal move start` until they are",
            operation="retire",
            retryable=True,
        )
    # The source first: what says that the move is over, to instances that still look there, is its gates.
    await sides.source.uninstall(keep_fence=True)
    await sides.target.uninstall(keep_fence=False)


async def abort(sides: Sides) -> None:
    """Takes the move out of both stores. The source goes on as it is; the target keeps the copies that it has.

    Raises ConflictError where a unit lives on the target: roll it back first, so that nothing is lost.
    """
    source = await sides.source.gates()
    target = await sides.target.gates()
    if any(gate.phase == "RETIRED" for gate in source.values()):
        raise ConflictError("the move is retired: the target is the store now", operation="abort")
    switched = [unit for unit, gate in target.items() if gate.role != "replica" and gate.side == "target"]
    fenced = [unit for unit, gate in source.items() if gate.role != "primary"]
    if switched or fenced:
        units = ", ".join(dict.fromkeys([*switched, *fenced]))
        raise ConflictError(
            f"{units}: lives on the target, or is being switched; roll it back first", operation="abort"
        )
    # The source last: as long as it has its gates, the move can be found and aborted again.
    if target:
        await sides.target.uninstall(keep_fence=False)
    await sides.source.uninstall(keep_fence=False)


async def abort_alone(source: Replica) -> None:
    """Takes the move out of the source, where the target is lost or does not answer.

    As long as the source is a unit's primary by its own gate, nothing was ever switched away for good. Raises
    ConflictError where it is not, or no move is on.
    """
    gates = await source.gates()
    if not gates:
        raise ConflictError("no move is on", operation="abort")
    if away := [unit for unit, gate in gates.items() if gate.role != "primary"]:
        raise ConflictError(
            f"{', '.join(away)}: lives on the target, or is being switched; without the target its rows would be lost",
            operation="abort",
        )
    await source.uninstall(keep_fence=False)
