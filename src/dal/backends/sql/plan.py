"""From a batch of operations to the statements that carry it out: the strategy any engine can run.

An engine with a better way for some batches (one statement for an append, one multi-row statement for a run) writes a
planner of its own and falls back to these pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from dal.backends.sql.compiler import Compiler, Write
from dal.backends.sql.dialect import Statement, Step
from dal.ops import Guard, Insert, Op, Ref


class Run(NamedTuple):
    """Neighbours of one shape: `ops[start:stop]` all compile to `write`."""

    write: Write
    start: int
    stop: int


def runs(ops: Sequence[Op], compiler: Compiler) -> list[Run]:
    """The batch as runs, in order. A run of one is the common case."""
    found: list[Run] = []
    start = 0
    current: Write | None = None
    for place, op in enumerate(ops):
        write = compiler.write(op)
        if write is not current:
            if current is not None:
                found.append(Run(current, start, place))
            current, start = write, place
    if current is not None:
        found.append(Run(current, start, len(ops)))
    return found


def plan_each(ops: Sequence[Op], compiler: Compiler) -> list[Step]:
    """One statement an operation; runs that nothing is asked of become one `many` statement."""
    steps: list[Step] = []
    for run in runs(ops, compiler):
        steps += steps_of_run(ops, run, compiler)
    return steps


def steps_of_run(ops: Sequence[Op], run: Run, compiler: Compiler) -> list[Step]:
    write, start, stop = run
    if stop - start > 1 and type(ops[start]) is Insert and not write.returns and not write.nullable_refs:
        rows = [write.bind(op) for op in ops[start:stop]]
        settled = [(1, None)] * (stop - start)
        return [Step(Statement(write.sql, rows, many=True), start, stop, lambda _result, _params: settled)]
    steps: list[Step] = []
    for place in range(start, stop):
        op = ops[place]
        if write.nullable_refs:
            steps += ref_guards(cast(Insert, op), write, place, compiler)
        steps.append(Step(write.statement(op), place, place + 1, write.settle))
    return steps


def ref_guards(op: Insert, write: Write, place: int, compiler: Compiler) -> list[Step]:
    """Statements that refuse the batch where a Ref into a nullable column finds no row."""
    refs = [cast(Ref, op.row[name]) for name in write.nullable_refs]
    guards = [Guard(ref.table, ref.key) for ref in refs]
    return [Step(compiler.write(guard).statement(guard), place, place + 1) for guard in guards]
