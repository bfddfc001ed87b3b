"""How PostgreSQL carries out a batch: as few statements as its shape allows.

A change of rows and the inserts that take values from them (an append: the chat's counter and its messages) are one
statement; so are neighbouring inserts of one shape, and neighbouring updates. Their rows' search terms go with them.
Everything else is one statement an operation. The order of operations is kept, and so is their meaning: what is put
together names different rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, cast

from dal import search
from dal.backends.postgresql import statements
from dal.backends.postgresql.dialect import encode_array, encode_copy, encode_terms
from dal.backends.postgresql.session import COPY
from dal.backends.postgresql.statements import InsertShape, UpdateShape
from dal.backends.sql import Compiler, Result, Statement, Step, ref_guards
from dal.backends.sql.search import SEARCHED, index_steps
from dal.ops import Insert, Op, Ref, Row, Update, Value
from dal.tables import TABLES, Kind

Settle = Callable[[Result, Sequence[object]], Sequence[tuple[int, Row | None]]]
_Key = tuple[str, tuple[str, ...], tuple[Value, ...]]

#: Neighbouring inserts from which COPY is faster than arrays (measured: 2.3 times at 1,000 rows, even at 100).
COPY_ROWS: Final = 100
#: Kinds whose values can go from one row to another through Python as they are.
_AS_IS: Final = (Kind.ID, Kind.TEXT, *statements.COUNTABLE)
_SEARCH_COLUMN: Final = cast(str, SEARCHED.search)


def plan(ops: Sequence[Op], compiler: Compiler) -> list[Step]:
    """The steps of a batch where there is no search index."""
    return _Planner(ops, compiler, searched=False).steps()


def plan_searched(ops: Sequence[Op], compiler: Compiler) -> list[Step]:
    """The steps of a batch, and what it means for the search index."""
    return _Planner(ops, compiler, searched=True).steps()


class _Inserts(NamedTuple):
    """Neighbouring inserts of one shape, and the row that each of them refers to (None where there is no Ref)."""

    shape: InsertShape
    ops: list[Insert]
    parents: list[_Key] | None


class _Planner:
    def __init__(self, ops: Sequence[Op], compiler: Compiler, *, searched: bool) -> None:
        self._ops = ops
        self._compiler = compiler
        self._searched = searched
        self._indexed_behind: list[Op] = []

    def steps(self) -> list[Step]:
        found: list[Step] = []
        place = 0
        while place < len(self._ops):
            steps = self._next(place)
            found += steps
            place = steps[-1].stop
        if self._indexed_behind:
            found += index_steps(self._indexed_behind, self._compiler)
        return found

    def _next(self, place: int) -> list[Step]:
        op = self._ops[place]
        if type(op) is Update and not op.returning and not op.set.keys() & op.key.keys():
            updates = self._updates(place, op)
            inserts = self._inserts(place + len(updates))
            if inserts is not None and inserts.parents is not None and all(p in updates for p in inserts.parents):
                return [self._append(place, updates, inserts)]
            if len(updates) > 1:
                return [self._update_many(place, updates)]
        elif type(op) is Insert:
            inserts = self._inserts(place)
            if inserts is not None and (inserts.shape.searched or len(inserts.ops) > 1):
                return [self._insert_many(place, inserts)]
        return self._alone(place, op)

    def _alone(self, place: int, op: Op) -> list[Step]:
        if self._searched and op.table == SEARCHED.name:
            self._indexed_behind.append(op)
        write = self._compiler.write(op)
        guards = ref_guards(op, write, place, self._compiler) if type(op) is Insert and write.nullable_refs else []
        return [*guards, Step(write.statement(op), place, place + 1, write.settle)]

    # What can be put together ----------------------------------------------------------------------------------------

    def _updates(self, place: int, first: Update) -> dict[_Key, Update]:
        """Neighbouring updates of different rows, alike but for their values."""
        shape = _update_shape(first)
        found: dict[_Key, Update] = {}
        for at in range(place, len(self._ops)):
            op = self._ops[at]
            if type(op) is not Update or op.returning or _update_shape(op) != shape:
                break
            key = (op.table, shape.key, tuple(op.key.values()))
            if key in found:
                break
            found[key] = op
        return found

    def _inserts(self, place: int) -> _Inserts | None:
        """Neighbouring inserts alike but for their values; None where the first is of no kind for it."""
        if place >= len(self._ops):
            return None
        first = self._ops[place]
        if type(first) is not Insert or (shape := self._insert_shape(first)) is None:
            return None
        ops: list[Insert] = []
        parents: list[_Key] = []
        for at in range(place, len(self._ops)):
            op = self._ops[at]
            if type(op) is not Insert or not (
                op is first or _is_alike(op, first, shape) or self._insert_shape(op) == shape
            ):
                break
            if shape.refs:
                ref = cast(Ref, op.row[shape.refs[0][0]])
                parent = (ref.table, tuple(ref.key), tuple(ref.key.values()))
                if parents and parent[:2] != parents[0][:2]:
                    break
                parents.append(parent)
            ops.append(op)
        return _Inserts(shape, ops, parents if shape.refs else None)

    def _insert_shape(self, op: Insert) -> InsertShape | None:
        refs: list[tuple[str, str]] = []
        first: Ref | None = None
        columns = TABLES[op.table].by_name
        for name, value in op.row.items():
            if type(value) is Ref:
                first = first or value
                if (
                    columns[name].nullable
                    or columns[name].kind not in _AS_IS
                    or value.table != first.table
                    or value.key != first.key
                ):
                    return None
                refs.append((name, value.column))
        if type(op.row["id"]) is Ref:
            return None
        searched = self._searched and op.table == SEARCHED.name and not op.search_later
        return InsertShape(op.table, tuple(op.row), tuple(refs), searched)

    # Steps -----------------------------------------------------------------------------------------------------------

    def _append(self, place: int, updates: dict[_Key, Update], inserts: _Inserts) -> Step:
        shape, ops, parents = inserts
        wanted = tuple(dict.fromkeys(column for _, column in shape.refs))
        places = {key: number for number, key in enumerate(updates, start=1)}
        several: Literal["one", "many"] = "many" if len(updates) > 1 else "one"
        many = len(ops) > 1
        sql = statements.append(_update_shape(next(iter(updates.values()))), shape, wanted, updates=several, many=many)
        links: list[list[object]] = []
        if several == "many":
            links.append([places[parent] for parent in parents or ()])
        params = [*self._update_params(list(updates.values())), *self._insert_params(shape, ops, links)]
        at = {name: 1 + wanted.index(column) for name, column in shape.refs}

        def settle(result: Result, _params: Sequence[object]) -> Sequence[tuple[int, Row | None]]:
            rows = {row[0]: row for row in result.rows}
            settled: list[tuple[int, Row | None]] = [(1 if n in rows else 0, None) for n in places.values()]
            for op, parent in zip(ops, parents or (), strict=True):
                settled.append((1, _returned(op, rows[places[parent]], at, plus=True)))
            return settled

        return Step(Statement(sql, params, returns=True), place, place + len(updates) + len(ops), settle)

    def _update_many(self, place: int, updates: dict[_Key, Update]) -> Step:
        ops = list(updates.values())

        def settle(result: Result, _params: Sequence[object]) -> Sequence[tuple[int, Row | None]]:
            found = {row[0] for row in result.rows}
            return [(1 if number in found else 0, None) for number in range(1, len(ops) + 1)]

        statement = Statement(statements.update_rows(_update_shape(ops[0])), self._update_params(ops), returns=True)
        return Step(statement, place, place + len(ops), settle)

    def _insert_many(self, place: int, inserts: _Inserts) -> Step:
        shape, ops, parents = inserts
        many = len(ops) > 1
        if parents is None:
            if len(ops) >= COPY_ROWS and not shape.searched:
                return self._copy(place, shape, ops)
            sql = statements.insert_rows(shape, many=many)
            statement = Statement(sql, self._insert_params(shape, ops, []))
            return Step(statement, place, place + len(ops), _all_written(ops))
        table, key, _ = parents[0]
        links = [self._encoded(table, name, [parent[2][i] for parent in parents]) for i, name in enumerate(key)]
        sql = statements.insert_referring(shape, table, key, many=many)
        at = {name: index for index, (name, _) in enumerate(shape.refs, start=1)}

        def settle(result: Result, _params: Sequence[object]) -> Sequence[tuple[int, Row | None]]:
            rows = {row[0]: row for row in result.rows}
            return [(1, _returned(op, rows[op.row["id"]], at, plus=False)) for op in ops]

        return Step(
            Statement(sql, self._insert_params(shape, ops, links), returns=True), place, place + len(ops), settle
        )

    def _copy(self, place: int, shape: InsertShape, ops: list[Insert]) -> Step:
        columns = self._columns(shape, ops)
        statement = Statement(f"{COPY}{shape.table} ({', '.join(shape.columns)}) FROM STDIN", (encode_copy(columns),))
        return Step(statement, place, place + len(ops), _all_written(ops))

    # Parameters ------------------------------------------------------------------------------------------------------

    def _update_params(self, ops: Sequence[Update]) -> list[object]:
        table, first = ops[0].table, ops[0]
        columns = [self._encoded(table, n, [op.set[n] for op in ops]) for n in first.set]
        columns += [[op.add[n] for op in ops] for n in first.add]
        columns += [self._encoded(table, n, [op.key[n] for op in ops]) for n in first.key]
        return _together(columns, many=len(ops) > 1)

    def _insert_params(self, shape: InsertShape, ops: Sequence[Insert], links: list[list[object]]) -> list[object]:
        columns = self._columns(shape, ops)
        columns += [[cast(Ref, op.row[n]).plus for op in ops] for n in shape.shifted]
        if shape.searched:
            columns.append([encode_terms(search.index_terms(cast(str, op.row[_SEARCH_COLUMN]))) for op in ops])
        columns += links
        return _together(columns, many=len(ops) > 1)

    def _columns(self, shape: InsertShape, ops: Sequence[Insert]) -> list[list[object]]:
        rows = [op.row for op in ops]
        return [self._encoded(shape.table, n, [row[n] for row in rows]) for n in shape.literals]

    def _encoded(self, table: str, name: str, values: list[object]) -> list[object]:
        column = TABLES[table].by_name[name]
        encoder = self._compiler.dialect.encoders.get(column.kind)
        if encoder is None:
            return values
        if column.nullable and column.kind is not Kind.JSON:
            return [None if value is None else encoder(value) for value in values]
        return [encoder(value) for value in values]


def _is_alike(op: Insert, first: Insert, shape: InsertShape) -> bool:
    """Whether an insert plainly has the shape of the first one: a quick word for the rows of a bulk load."""
    return (
        not shape.refs
        and op.table == shape.table
        and op.search_later == first.search_later
        and tuple(op.row) == shape.columns
        and Ref not in set(map(type, op.row.values()))
    )


def _update_shape(op: Update) -> UpdateShape:
    return UpdateShape(op.table, tuple(op.key), tuple(op.set), tuple(op.add))


def _together(columns: list[list[object]], *, many: bool) -> list[object]:
    """Columns of values as parameters: arrays, or the values of the one row."""
    return [encode_array(values) for values in columns] if many else [values[0] for values in columns]


def _all_written(ops: Sequence[Insert]) -> Settle:
    """What came of inserts without a Ref, none of which was refused: every value is known."""
    settled = [(1, tuple([cast(Value, op.row[name]) for name in op.returning]) or None) for op in ops]
    return lambda _result, _params: settled


def _returned(op: Insert, row: Sequence[object], at: dict[str, int], *, plus: bool) -> Row | None:
    """What RETURNING would give: values that the caller gave, and those that Refs took, from these places of the row.

    plus  the row is the one referred to: what the Refs add is still to be added.
    """
    if not op.returning:
        return None
    found: list[Value] = []
    for name in op.returning:
        value = op.row[name]
        if type(value) is Ref:
            taken = cast(Value, row[at[name]])
            value = taken + value.plus if plus and value.plus and isinstance(taken, int) else taken
        found.append(cast(Value, value))
    return tuple(found)
