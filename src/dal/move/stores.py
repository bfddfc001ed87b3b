"""The two stores of a check: which tables are read through registries, and which side holds them now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dal.move.differences import Roles
from dal.move.reading import Reader, ReplicaReader
from dal.move.sides import Side, Sides, read_gates
from dal.replica import UNITS, Movable, Replica
from dal.store import Store
from dal.tables import Table


class Stores(NamedTuple):
    """Both sides as a check reads them.

    moving  tables that take part in a move of these two stores.
    sides   None where they are in no move.
    """

    source: Reader
    target: Reader
    moving: frozenset[str] = frozenset()
    sides: Sides | None = None

    @staticmethod
    async def of(source: Store, target: Store) -> Stores:
        """Raises ConflictError where the stores belong to different moves."""
        ours, theirs = Reader("source", source), Reader("target", target)
        if not isinstance(source, Movable) or not isinstance(target, Movable):
            return Stores(ours, theirs)
        sides = Sides(source.replica(), target.replica())
        # A store that was moved somewhere else keeps its gates; compared with a third one it is a store like any other.
        # So does one whose move is over.
        gates = [await replica.gates() for replica in sides]
        moves = [{gate.move for gate in found.values() if gate.phase != "RETIRED"} for found in gates]
        if not moves[0] or moves[0] != moves[1]:
            return Stores(ours, theirs)
        return Stores(
            ReplicaReader("source", source, sides.source),
            ReplicaReader("target", target, sides.target),
            frozenset(name for unit in await read_gates(sides) for name in UNITS[unit]),
            sides,
        )

    def readers(self, table: Table) -> tuple[Reader, Reader]:
        """How this table is read."""
        if table.name in self.moving or self.sides is None:
            return self.source, self.target
        return self.source.plain(), self.target.plain()

    def replicas(self, table: Table) -> tuple[ReplicaReader, ReplicaReader]:
        """Both sides of a table that takes part in the move, with their registries."""
        source, target = self.readers(table)
        if not isinstance(source, ReplicaReader) or not isinstance(target, ReplicaReader):
            raise TypeError(f"{table.name} takes part in no move")  # the caller has asked for its role
        return source, target

    def by_side(self) -> dict[Side, Replica]:
        """The moves' side of both stores; empty where they are in no move."""
        return {} if self.sides is None else {"source": self.sides.source, "target": self.sides.target}

    async def roles(self) -> Mapping[str, Roles]:
        """Which side holds each table that is in the move, as of now."""
        if self.sides is None:
            return {}
        units = await read_gates(self.sides)
        return {name: Roles(gates.holder, gates.phase) for unit, gates in units.items() for name in UNITS[unit]}
