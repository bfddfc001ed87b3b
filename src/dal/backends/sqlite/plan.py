"""How SQLite carries out a batch: a Ref into a row that the batch has just updated is taken from the UPDATE itself.

`UPDATE … RETURNING` hands the values over inside the writer's thread, so the inserts behind it need no sub-select and
nothing returned, and any number of them with one shape become one `executemany`. Whatever else a batch holds goes one
statement an operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, cast

from dal.backends.sql import Compiler, Link, Result, Statement, Step, Write, ref_guards
from dal.ops import Delete, Insert, Op, Ref, Row, Update, Upsert, Value
from dal.tables import Kind

_Pending: TypeAlias = "list[Step | _Updated | _Inserts]"
#: Kinds that SQLite stores as the waist has them, so that a value can go from one statement to the next.
_AS_IS: Final = frozenset({Kind.ID, Kind.TEXT, Kind.INT, Kind.BIGINT})


def plan_linked(ops: Sequence[Op], compiler: Compiler) -> list[Step]:
    """The steps of a batch, in its order."""
    pending: _Pending = []
    updated: dict[str, _UpdatedRows] = {}
    for place, op in enumerate(ops):
        if type(op) is Insert:
            if _add_insert(pending, op, place, updated, compiler):
                continue
            write = compiler.insert(op)
            if write.nullable_refs:
                pending += ref_guards(op, write, place, compiler)
        elif type(op) is Update:
            source = _note_update(updated, op, len(pending), place)
            if source is not None:
                pending.append(source)
                continue
            write = compiler.write(op)
        else:
            if type(op) is Delete:
                updated.clear()  # a cascade may reach any table
            elif type(op) is Upsert:
                updated.pop(op.table, None)
            write = compiler.write(op)
        pending.append(Step(write.statement(op), place, place + 1, write.settle))
    return [step if isinstance(step, Step) else step.step(compiler) for step in pending]


class _Updated:
    """An update whose new values Refs behind it may want: they are returned in the order they were first asked for."""

    def __init__(self, index: int, op: Update, place: int) -> None:
        self.index = index
        self.op = op
        self.place = place
        self.columns: dict[str, int] = {}

    def place_of(self, column: str) -> int:
        return self.columns.setdefault(column, len(self.columns))

    def step(self, compiler: Compiler) -> Step:
        write = compiler.update_returning(self.op, tuple(self.columns))
        return Step(write.statement(self.op), self.place, self.place + 1, _written)


class _UpdatedRows:
    """The rows of one table that updates of this batch have named, all by the same columns.

    Two values of one unique key are two rows, but two different keys may name one row.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self.rows: dict[tuple[Value, ...], _Updated] = {}

    def find(self, ref: Ref) -> _Updated | None:
        return self.rows.get(tuple(ref.key.values())) if tuple(ref.key) == self.columns else None


def _note_update(updated: dict[str, _UpdatedRows], op: Update, index: int, place: int) -> _Updated | None:
    """The update as a source of values, or None where it cannot be one; what it makes unsure is forgotten."""
    columns = tuple(op.key)
    rows = updated.get(op.table)
    if rows is None or rows.columns != columns:
        rows = updated[op.table] = _UpdatedRows(columns)
    if any(column in op.set for column in columns):
        del updated[op.table]  # the key now names another row, or none
        return None
    if op.returning:
        rows.rows.pop(tuple(op.key.values()), None)
        return None
    source = rows.rows[tuple(op.key.values())] = _Updated(index, op, place)
    return source


def _written(result: Result, _params: Sequence[object]) -> Sequence[tuple[int, Row | None]]:
    return ((result.written, None),)


class _Inserts:
    """Neighbouring inserts of one shape, without a Ref or with links in the places of all their Refs."""

    def __init__(self, write: Write, start: int) -> None:
        self.write = write
        self.start = start
        self.ops: list[Insert] = []
        self.rows: list[list[object]] = []
        self.links: list[Link] = []

    def step(self, _compiler: Compiler) -> Step:
        stop = self.start + len(self.ops)
        if len(self.rows) == 1:
            statement = Statement(self.write.sql, self.rows[0], links=self.links)
        else:
            statement = Statement(self.write.sql, self.rows, many=True, links=self.links)
        return Step(statement, self.start, stop, self.settle)

    def settle(self, _result: Result, _params: Sequence[object]) -> Sequence[tuple[int, Row | None]]:
        return [(1, _returned(op, row) if op.returning else None) for op, row in zip(self.ops, self.rows, strict=True)]


def _returned(op: Insert, params: Sequence[object]) -> Row:
    """What RETURNING would give: every value of the row is given or was filled in."""
    stored = dict(zip(op.row, params, strict=True))
    values = [stored[name] if type(op.row[name]) is Ref else op.row[name] for name in op.returning]
    return cast(Row, tuple(values))


def _add_insert(
    pending: _Pending, op: Insert, place: int, updated: dict[str, _UpdatedRows], compiler: Compiler
) -> bool:
    """Adds the insert to the run it continues, or begins one; False where a Ref needs a sub-select."""
    found: list[tuple[int, Ref, _Updated]] = []
    for at, value in enumerate(op.row.values()):
        if type(value) is Ref:
            rows = updated.get(value.table)
            source = rows.find(value) if rows is not None else None
            if source is None or compiler.tables[value.table].by_name[value.column].kind not in _AS_IS:
                return False
            found.append((at, value, source))
    write = compiler.insert_linked(op)
    last = pending[-1] if pending else None
    if not isinstance(last, _Inserts) or last.write is not write:
        last = _Inserts(write, place)
        pending.append(last)
    for at, ref, source in found:
        last.links.append(Link(len(last.rows), at, source.index, source.place_of(ref.column), ref.plus))
    last.ops.append(op)
    last.rows.append(write.bind(op))
    return True
