"""Random operations against the memory interpreter: every store must answer, refuse and hold what the oracle does.

Concurrent commits are checked for linearizability the plain way: some order of them, tried one after the other on a
copy of the oracle, must give the same answers and leave the same rows. A failure prints the blob that reproduces it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from dal.backends.memory import MemoryStore
from dal.config import Settings
from dal.errors import AlreadyExistsError, ConflictError, DalError, MissingReferenceError
from dal.factory import create_store
from dal.ops import Insert, Op, Query, Receipt
from dal.store import ReadCommit, Store
from dal.tables import TABLES
from dal.testing import rows
from tests.engines import postgres
from tests.engines.d1 import D1Engine
from tests.model import operations
from tests.subjects import wrap

T = TypeVar("T")
Outcome = Receipt | type[DalError]


class _RollBack(Exception):
    """Ends a transaction without its writes."""


async def outcome(store: ReadCommit, ops: Sequence[Op]) -> Outcome:
    """The receipt, or the class of the refusal."""
    try:
        return await store.commit(ops)
    except (AlreadyExistsError, ConflictError, MissingReferenceError) as error:
        assert error.outcome == "not_applied"
        return type(error)


async def copy_of(oracle: Store) -> MemoryStore:
    """Another oracle that holds the same rows."""
    twin = MemoryStore()
    await twin.open()
    for name, found in (await rows.everything(oracle, operations.WRITTEN)).items():
        await twin.commit([Insert(name, dict(zip(TABLES[name].names, row, strict=True))) for row in found])
    return twin


class StoreMachine(RuleBasedStateMachine):
    """A store and the oracle, fed with the same words."""

    def __init__(self, make: Callable[[], Store]) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.subject: Store = make()
        self.oracle: Store = MemoryStore()
        self.run(self.subject.open())
        self.run(self.oracle.open())

    def run(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await work

        return self.runner.run(bounded())

    def teardown(self) -> None:
        self.run(self.subject.close())
        self.runner.close()

    @rule(ops=operations.batches())
    def commit(self, ops: list[Op]) -> None:
        assert self.run(outcome(self.subject, ops)) == self.run(outcome(self.oracle, ops))

    @rule(query=operations.queries())
    def read(self, query: Query) -> None:
        assert self.run(self.subject.read(query)) == self.run(self.oracle.read(query))

    @rule(
        batches=st.lists(operations.batches(), min_size=1, max_size=4), query=operations.queries(), keep=st.booleans()
    )
    def transaction(self, batches: list[list[Op]], query: Query, keep: bool) -> None:
        async def work(store: Store) -> list[object]:
            told: list[object] = []
            try:
                async with store.transaction() as transaction:
                    for ops in batches:
                        told.append(await outcome(transaction, ops))
                        told.append(await transaction.read(query))
                    told.append(await rows.everything(transaction, operations.WRITTEN))
                    if not keep:
                        raise _RollBack
            except _RollBack:
                pass
            return told

        assert self.run(work(self.subject)) == self.run(work(self.oracle))

    @rule(batches=st.lists(operations.batches(), min_size=2, max_size=4))
    def concurrent_commits(self, batches: list[list[Op]]) -> None:
        async def together() -> list[Outcome]:
            return await asyncio.gather(*(outcome(self.subject, ops) for ops in batches))

        async def in_some_order(outcomes: list[Outcome]) -> Store:
            found = await rows.everything(self.subject, operations.WRITTEN)
            for order in itertools.permutations(range(len(batches))):
                twin = await copy_of(self.oracle)
                if all([await outcome(twin, batches[n]) == outcomes[n] for n in order]) and (
                    await rows.everything(twin, operations.WRITTEN) == found
                ):
                    return twin
            raise AssertionError(f"no order of the commits explains {outcomes}")

        self.oracle = self.run(in_some_order(self.run(together())))

    @rule(data=st.data(), count=st.integers(8, 20))
    def concurrent_appends(self, data: st.DataObject, count: int) -> None:
        """More commits at once than orders could be tried: the numbers they were given say which one it was."""
        chats = [
            rows.number_of(row[0])
            for row in self.run(rows.everything(self.oracle, operations.WRITTEN))["chat_sessions"]
        ]
        if not chats:
            return
        batches = [data.draw(operations.appends(data.draw(st.sampled_from(chats)))) for _ in range(count)]

        async def together() -> list[Outcome]:
            return await asyncio.gather(*(outcome(self.subject, ops) for ops in batches))

        def number(item: tuple[list[Op], Outcome]) -> int:
            row = item[1].rows[1] if isinstance(item[1], Receipt) else None
            assert row is not None
            assert isinstance(row[0], int)
            return row[0]

        told = list(zip(batches, self.run(together()), strict=True))
        for ops, expected in sorted((item for item in told if isinstance(item[1], Receipt)), key=number):
            assert self.run(outcome(self.oracle, ops)) == expected
        for ops, refusal in told:
            if not isinstance(refusal, Receipt):
                assert self.run(outcome(self.oracle, ops)) == refusal

    @rule()
    def close_and_open(self) -> None:
        self.run(self.subject.close())
        self.run(self.subject.open())

    @invariant()
    def both_hold_the_same_rows(self) -> None:
        assert self.run(rows.everything(self.subject, operations.WRITTEN)) == self.run(
            rows.everything(self.oracle, operations.WRITTEN)
        )


#: How many random programs each backend runs: about twenty seconds' worth. DAL_MODEL_EXAMPLES sets another number.
EXAMPLES = {"memory": 10, "file": 12, "sqlite": 20, "postgresql": 12, "d1": 6}


def drive(make: Callable[[], Store], backend: str) -> None:
    examples = int(os.environ.get("DAL_MODEL_EXAMPLES", EXAMPLES[backend]))
    run_state_machine_as_test(
        lambda: StoreMachine(make),  # type: ignore[arg-type]  # any maker of a machine will do
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


LAYERINGS = pytest.mark.parametrize("layers", [(), ("group",)], ids=["bare", "group"])


@LAYERINGS
def test_the_memory_store(layers: tuple[str, ...]) -> None:
    drive(lambda: wrap(MemoryStore(), layers), "memory")


@LAYERINGS
@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_an_embedded_store(backend: str, layers: tuple[str, ...], tmp_path: Path) -> None:
    def make() -> Store:
        place = Path(tempfile.mkdtemp(dir=tmp_path))
        return wrap(create_store(f"{backend}://{place / 'store'}"), layers)

    drive(make, backend)


@LAYERINGS
def test_the_postgresql_store(layers: tuple[str, ...], postgres_with_schema: str) -> None:
    def make() -> Store:
        postgres.clean(postgres_with_schema)
        return wrap(create_store(postgres_with_schema), layers)

    drive(make, "postgresql")


@LAYERINGS
def test_the_d1_store(layers: tuple[str, ...], d1_engine: D1Engine, d1_schema: list[str]) -> None:
    def make() -> Store:
        database = d1_engine.create_database()
        d1_engine.query(database, *d1_schema)
        engine = Settings(d1_api_base=database.base, d1_api_token=database.token)
        return wrap(create_store(database.url, settings=engine), layers)

    drive(make, "d1")
