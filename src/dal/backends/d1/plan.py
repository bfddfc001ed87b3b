"""How D1 carries out a batch: statements that need nothing from each other's results, for they go in one request.

A Ref is a sub-select that runs where the batch has come to. Neighbouring inserts of one shape are one statement over
rows in JSON. Counts come from RETURNING, because the count that D1 reports holds what triggers and cascades wrote.
Every statement that returns something also says how to recall it, should the answer be lost (executor.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, cast

from dal.backends.d1.wire import check_row
from dal.backends.sql import Compiler, Result, Statement, Step, Write
from dal.backends.sql.search import index_steps
from dal.ops import Compare, Delete, Guard, Insert, Op, Ref, Row, Select, Update, Upsert, Value

_Settled = Sequence[tuple[int, Row | None]]
_Settle = Callable[[Result, Sequence[object]], _Settled]
#: What a Guard inserts, and what a guard of ours for a Ref does: by it they are told apart in D1's answer.
_STALE: Final = "SELECT 0 WHERE"
_DANGLING: Final = "SELECT NULL WHERE"


def plan(ops: Sequence[Op], compiler: Compiler) -> list[Step]:
    """The steps of a batch where there is no search index."""
    steps: list[Step] = []
    place = 0
    while place < len(ops):
        op = ops[place]
        if type(op) is Insert:
            steps += _inserts(ops, place, compiler)
        elif type(op) is Update:
            steps.append(_update(op, place, compiler))
        elif type(op) is Upsert:
            steps.append(_upsert(op, place, compiler))
        elif type(op) is Delete:
            steps.append(_delete(op, place, compiler))
        else:
            steps.append(Step(compiler.write(op).statement(op), place, place + 1, _guard_settled))
        place = steps[-1].stop
    return steps


def plan_searched(ops: Sequence[Op], compiler: Compiler) -> list[Step]:
    """The same, and what the batch means for the search index."""
    return [*plan(ops, compiler), *index_steps(ops, compiler)]


# Inserts -------------------------------------------------------------------------------------------------------------


def _inserts(ops: Sequence[Op], place: int, compiler: Compiler) -> list[Step]:
    """The insert and its neighbours of the same shape; with guards before it where a Ref may find null or no row."""
    first = cast(Insert, ops[place])
    write, wanted = _compiled(first, compiler)
    alike = [first]
    if not write.nullable_refs and not _refers_to_itself(first):
        for op in ops[place + 1 :]:
            if type(op) is not Insert or op.table != first.table or _compiled(op, compiler) != (write, wanted):
                break
            alike.append(op)
    rows = [write.bind(op) for op in alike]
    for row in rows:
        check_row(first.table, row)
    statement = Statement(write.sql, rows, returns=write.returns, many=True)
    if wanted and not any(type(op.row["id"]) is Ref for op in alike):
        statement = statement._replace(recall=partial(_recall_inserts, alike, wanted, compiler))
    guards = [_ref_guard(cast(Ref, first.row[name]), place, compiler) for name in write.nullable_refs]
    return [*guards, Step(statement, place, place + len(alike), _inserted(alike, write, wanted))]


def _compiled(op: Insert, compiler: Compiler) -> tuple[Write, tuple[str, ...]]:
    """The insert, returning its id and what the Refs gave, where any of that is asked for."""
    taken = tuple([name for name in op.returning if type(op.row[name]) is Ref])
    wanted = (compiler.tables[op.table].key, *taken) if taken else ()
    return compiler.insert_returning(op, wanted), wanted


def _refers_to_itself(op: Insert) -> bool:
    """Whether a row before it, in the same statement, could be what it refers to."""
    return any(type(value) is Ref and value.table == op.table for value in op.row.values())


def _inserted(ops: Sequence[Insert], write: Write, wanted: tuple[str, ...]) -> _Settle:
    if not wanted:
        settled = [(1, _given(op) if op.returning else None) for op in ops]
        return lambda _result, _params: settled

    def settle(result: Result, _params: Sequence[object]) -> _Settled:
        # In whatever order they come.
        found = {row[0]: dict(zip(wanted, row, strict=True)) for row in write.decode(result.rows)}
        if len(ops) == 1:
            return [(1, _given(ops[0], next(iter(found.values()))))]
        return [(1, _given(op, found[cast(Value, op.row["id"])])) for op in ops]

    return settle


def _given(op: Insert, taken: dict[str, Value] | None = None) -> Row:
    """What RETURNING would give: what the caller gave, and what Refs took."""
    return tuple([cast(Value, op.row[n]) if taken is None or n not in taken else taken[n] for n in op.returning])


def _recall_inserts(ops: Sequence[Insert], wanted: tuple[str, ...], compiler: Compiler) -> Statement:
    ids = tuple([op.row["id"] for op in ops])
    where = Compare("id", "in", cast("tuple[Value, ...]", ids))
    return compiler.select(Select(ops[0].table, (where,), columns=wanted))[0]


# Changes -------------------------------------------------------------------------------------------------------------


def _update(op: Update, place: int, compiler: Compiler) -> Step:
    write = compiler.update_returning(op, op.returning or (next(iter(op.key)),))
    params = write.bind(op)
    check_row(op.table, params)
    # The row is looked for under the key it has afterwards.
    key = {name: op.set.get(name, value) for name, value in op.key.items()}
    recall = partial(_recall_row, op.table, key, op.returning or tuple(op.key)[:1], compiler)
    return _row_step(op, place, Statement(write.sql, params, returns=True, recall=recall), write)


def _upsert(op: Upsert, place: int, compiler: Compiler) -> Step:
    write = compiler.write(op if op.returning else op._replace(returning=op.on[:1]))
    params = write.bind(op)
    check_row(op.table, params)
    recall = partial(_recall_row, op.table, {name: op.row[name] for name in op.on}, op.returning or op.on[:1], compiler)
    is_certain = not op.where and (op.update or op.add)
    statement = Statement(write.sql, params, returns=True, recall=recall, counted=not is_certain)
    return _row_step(op, place, statement, write)


def _recall_row(table: str, key: dict[str, Value], columns: tuple[str, ...], compiler: Compiler) -> Statement:
    where = tuple([Compare(name, "=", value) for name, value in key.items()])
    return compiler.select(Select(table, where, limit=1, columns=columns))[0]


def _row_step(op: Update | Upsert, place: int, statement: Statement, write: Write) -> Step:
    def settle(result: Result, _params: Sequence[object]) -> _Settled:
        rows = write.decode(result.rows) if op.returning else ()
        return ((len(result.rows), rows[0] if rows else None),)

    return Step(statement, place, place + 1, settle)


def _delete(op: Delete, place: int, compiler: Compiler) -> Step:
    write = compiler.write(op)
    statement = Statement(f"{write.sql} RETURNING 1", write.bind(op), returns=True, counted=True)
    return Step(statement, place, place + 1, lambda result, _params: ((len(result.rows), None),))


# Guards --------------------------------------------------------------------------------------------------------------


def _ref_guard(ref: Ref, place: int, compiler: Compiler) -> Step:
    guard = Guard(ref.table, ref.key)
    statement = compiler.write(guard).statement(guard)
    return Step(statement._replace(sql=statement.sql.replace(_STALE, _DANGLING, 1)), place, place + 1)


def _guard_settled(_result: Result, _params: Sequence[object]) -> _Settled:
    return ((0, None),)
