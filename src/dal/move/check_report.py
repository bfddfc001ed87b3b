"""What a check found, table by table: counts for everything, and a few differences of each kind to look at.

A report as a dictionary or in JSON holds no content: ids and names of fields alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

from dal.errors import InvalidInputError
from dal.limits import CHECK_SAMPLES
from dal.move.differences import KINDS, Difference, Kind
from dal.move.sides import Side
from dal.ops import JsonValue

Mode: TypeAlias = Literal["quick", "deep", "tail"]


class Place(NamedTuple):
    """How far a check has come: this table, behind this id; the tables before it are done."""

    table: str
    after: str


class CheckProgress(NamedTuple):
    """Where a check is. `total` is the larger of both sides' rows when the table was begun."""

    table: str
    rows: int
    total: int
    differences: int
    watched: int


@dataclass(slots=True)
class TableResult:
    """One table, as far as it was compared.

    source, target  rows seen on either side; with `quick` and `tail`, registry entries of rows.
    equal           ids under which both sides hold the same row.
    pending         rows that kept changing, or wait for their copy.
    """

    source: int = 0
    target: int = 0
    equal: int = 0
    pending: int = 0
    counts: dict[Kind, int] = field(default_factory=dict)
    samples: list[Difference] = field(default_factory=list)

    @property
    def differences(self) -> int:
        return sum(self.counts.values())

    def add(self, difference: Difference) -> None:
        count = self.counts[difference.kind] = self.counts.get(difference.kind, 0) + 1
        if count <= CHECK_SAMPLES:
            self.samples.append(difference)


@dataclass(slots=True, kw_only=True)
class CheckReport:
    """A check of two stores.

    in_move   the units that take part in a move of these two stores; rows of the others have no versions.
    stopped   where the check ran out of time; None when it came to the end.
    total     rows of both sides together, counted when time was up; None when it came to the end.
    sampled   rows of each table that were asked for, when not all of them were.
    damage    what a store cannot read; its rows may be missing on both sides, and then nothing would differ.
    unseen    tables of which a quick look cannot tell everything, and why.
    """

    mode: Mode
    began: datetime
    seconds: float = 0.0
    tables: dict[str, TableResult] = field(default_factory=dict)
    in_move: tuple[str, ...] = ()
    sampled: int | None = None
    stopped: Place | None = None
    total: int | None = None
    damage: dict[Side, list[str]] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)

    @property
    def differences(self) -> int:
        return sum(result.differences for result in self.tables.values())

    @property
    def pending(self) -> int:
        return sum(result.pending for result in self.tables.values())

    @property
    def rows(self) -> int:
        """Rows seen on both sides together."""
        return sum(result.source + result.target for result in self.tables.values())

    @property
    def is_equal(self) -> bool:
        """Nothing of what was compared differs, waits, or could not be seen."""
        return not (self.differences or self.pending or self.unseen or any(self.damage.values()))

    @property
    def is_whole(self) -> bool:
        """Every row was compared."""
        return self.stopped is None and self.sampled is None and self.mode != "tail"

    def as_dict(self) -> dict[str, JsonValue]:
        """The report for programs; no content."""
        return {
            "mode": self.mode,
            "equal": self.is_equal,
            "whole": self.is_whole,
            "began": self.began.isoformat(),
            "seconds": round(self.seconds, 3),
            "rows": self.rows,
            "differences": self.differences,
            "pending": self.pending,
            "in_move": list(self.in_move),
            "sampled": self.sampled,
            "stopped": None if self.stopped is None else {"table": self.stopped.table, "after": self.stopped.after},
            "total": self.total,
            "damage": {side: list(found) for side, found in self.damage.items()},
            "unseen": dict(self.unseen),
            "tables": {name: _table(result) for name, result in self.tables.items()},
        }


def _table(result: TableResult) -> dict[str, JsonValue]:
    return {
        "source": result.source,
        "target": result.target,
        "equal": result.equal,
        "pending": result.pending,
        "counts": {kind: result.counts.get(kind, 0) for kind in KINDS},
        "samples": [described(difference) for difference in result.samples],
    }


def described(difference: Difference) -> dict[str, JsonValue]:
    """One difference without content."""
    return {
        "kind": difference.kind,
        "table": difference.table,
        "id": difference.id,
        "side": difference.side,
        "fields": list(difference.fields),
        "altered": list(difference.altered),
        "source_version": None if difference.source is None else difference.source.version,
        "target_version": None if difference.target is None else difference.target.version,
    }


def report_of(saved: Mapping[str, Any]) -> CheckReport:
    """The report that `as_dict` gave, to go on where it stopped; the differences without their rows.

    Raises  InvalidInputError: it is none.
    """
    try:
        stopped = saved["stopped"]
        return CheckReport(
            mode=saved["mode"],
            began=datetime.fromisoformat(saved["began"]),
            seconds=saved["seconds"],
            tables={name: _result_of(table) for name, table in saved["tables"].items()},
            in_move=tuple(saved["in_move"]),
            sampled=saved["sampled"],
            stopped=None if stopped is None else Place(stopped["table"], stopped["after"]),
            damage=dict(saved["damage"]),
            unseen=dict(saved["unseen"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError("this is not the state of a check; remove it to begin anew") from error


def _result_of(saved: Mapping[str, Any]) -> TableResult:
    samples = [
        Difference(d["kind"], d["table"], d["id"], d["side"], tuple(d["fields"]), tuple(d["altered"]))
        for d in saved["samples"]
    ]
    counts = {kind: saved["counts"][kind] for kind in KINDS if saved["counts"][kind]}
    return TableResult(saved["source"], saved["target"], saved["equal"], saved["pending"], counts, samples)
