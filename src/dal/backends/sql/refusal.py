"""A broken constraint, told in the words of the operations: which table, which key, which parent.

Engines differ in how much they say. Where the engine names neither the statement nor the constraint, the message names
what could have clashed. Values appear only where they are ids or callers' keys, never contents.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, cast

from dal.backends.sql.dialect import Step, Violation
from dal.errors import AlreadyExistsError, ConflictError, DalError, InvalidInputError, MissingReferenceError
from dal.ops import Compare, Delete, Guard, Insert, Op, Query, Ref, Row, Select, Update, Upsert, Value
from dal.tables import TABLES, Table

_SHOWN_CHARS: Final = 100
_Values = Mapping[str, object]


def refusal(violation: Violation, ops: Sequence[Op], steps: Sequence[Step], backend: str) -> DalError:
    """The error of the taxonomy for a batch that a constraint refused; nothing of the batch was written."""
    concerned = _concerned(violation, ops, steps)
    if violation.kind == "check":
        guards = [op for op in concerned if type(op) is Guard]
        if guards and len(guards) == len(concerned):
            return ConflictError(_stale(guards), operation="commit", backend=backend)
        # Only a guard of the compiler's own stands beside another operation: a Ref that found no row.
        return MissingReferenceError(_dangling(concerned), operation="commit", backend=backend)
    if violation.kind == "unique":
        return AlreadyExistsError(_taken(concerned, violation.constraint), operation="commit", backend=backend)
    if violation.kind == "foreign key":
        return MissingReferenceError(_orphaned(concerned), operation="commit", backend=backend)
    if violation.kind == "missing" or any(_refs(op) for op in concerned):
        return MissingReferenceError(_dangling(concerned), operation="commit", backend=backend)
    tables = ", ".join(sorted({op.table for op in concerned}))
    return InvalidInputError(f"{tables}: a column that must not be null got none", operation="commit", backend=backend)


async def name_clash(
    violation: Violation, ops: Sequence[Op], steps: Sequence[Step], read: Callable[[Query], Awaitable[list[Row]]]
) -> None:
    """Finds out which unique key of a refused insert is taken, where the engine has not said.

    It looks after the fact: the answer is for the message only.
    """
    concerned = _concerned(violation, ops, steps)
    if violation.kind != "unique" or violation.constraint or len(concerned) != 1 or type(concerned[0]) is not Insert:
        return
    table, row = TABLES[concerned[0].table], concerned[0].row
    keys = [key for key in table.unique_keys if _is_literal(row, key)]
    if len(keys) < 2:
        return
    for key in keys:
        where = tuple(Compare(name, "=", cast(Value, row[name])) for name in key)
        if await read(Select(table.name, where, limit=1, columns=(table.key,))):
            violation.constraint = _constraint_of(table, key)
            return


def _concerned(violation: Violation, ops: Sequence[Op], steps: Sequence[Step]) -> list[Op]:
    """The operations of the refused statement, or all that could break this kind of constraint."""
    if violation.statement is not None:
        step = steps[violation.statement]
        return list(ops[step.start : step.stop])
    match violation.kind:
        case "check":
            # The guards of Refs are told apart by their statement only; without it, a Guard is the likelier one.
            return [op for op in ops if type(op) is Guard] or list(ops)
        case "missing" | "not null":
            return [op for op in ops if _refs(op)] or list(ops)
        case _:
            return [op for op in ops if type(op) in (Insert, Upsert, Update)]


def _refs(op: Op) -> list[Ref]:
    return [v for v in op.row.values() if type(v) is Ref] if type(op) is Insert else []


def _row(op: Op) -> _Values:
    """The values that the operation brings."""
    if type(op) is Insert or type(op) is Upsert:
        return op.row
    return op.set if type(op) is Update else {}


def _stale(guards: Sequence[Guard]) -> str:
    if len(guards) > 1:
        return f"{_tables(guards)}: one of {len(guards)} guarded rows is not as expected; read them again and retry"
    guard = guards[0]
    conditions = [_pairs(guard.expect)] if guard.expect else []
    conditions += [f"{c.column} {c.op} {_wanted(c.value)}" for c in guard.where]
    expected = f" is not at {' and '.join(conditions)}" if conditions else " is not there"
    return f"{guard.table}[{_pairs(guard.key)}]{expected}; read it again and retry"


def _wanted(value: object) -> str:
    if type(value) is not Ref:
        return _shown(value)
    plus = f" {'-' if value.plus < 0 else '+'} {abs(value.plus)}" if value.plus else ""
    return f"{value.table}[{_pairs(value.key)}].{value.column}{plus}"


def _taken(ops: Sequence[Op], constraint: str) -> str:
    if len(ops) != 1:
        return f"{_tables(ops)}: one of {len(ops)} rows holds a key that is already taken"
    table, row = TABLES[ops[0].table], _row(ops[0])
    keys = [key for key in table.unique_keys if not constraint or _constraint_of(table, key) == constraint]
    shown = [_pairs({c: row[c] for c in key}) for key in keys if _is_literal(row, key)]
    if not shown:
        return f"{table.name}: a row with this key already exists"
    return f"{table.name}[{'] or ['.join(shown)}] already exists"


def _constraint_of(table: Table, key: tuple[str, ...]) -> str:
    names = [i.name for i in table.indexes if i.unique and i.columns == key]
    return names[0] if names else f"{table.name}_pkey"


def _is_literal(row: _Values, key: Iterable[str]) -> bool:
    return all(row.get(c) is not None and type(row[c]) is not Ref for c in key)


def _orphaned(ops: Sequence[Op]) -> str:
    if len(ops) != 1:
        return f"{_tables(ops)}: one of {len(ops)} rows refers to a row that is not there"
    table, row = TABLES[ops[0].table], _row(ops[0])
    parents = [
        f"{table.name}.{p.column} refers to {p.table}[{_pairs({'id': row[p.column]})}], which is not there"
        for p in table.parents
        if _is_literal(row, (p.column,))
    ]
    return "; or ".join(parents) or f"{table.name}: refers to a row that is not there"


def _dangling(ops: Sequence[Op]) -> str:
    refs = {f"{ref.table}[{_pairs(ref.key)}]" for op in ops for ref in _refs(op)}
    if len(refs) == 1:
        return f"{_tables(ops)}: refers to {refs.pop()}, which is not there"
    return f"{_tables(ops)}: refers to a row that is not there"


def _tables(ops: Sequence[Op]) -> str:
    return ", ".join(sorted({op.table for op in ops if type(op) is not Delete})) or "commit"


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in values.items())


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
