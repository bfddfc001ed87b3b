"""Metrics: every call is counted and timed, under names that hold nothing of the caller's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader

from dal.backends.memory import MemoryStore
from dal.errors import ConflictError
from dal.layers.base import Layer
from dal.layers.metrics import Metrics
from dal.ops import Count, Guard, Op, Receipt, Update
from dal.values import new_id

TOUCH = Update("users", {"id": new_id()}, {}, {"version": 1})
REFUSED = Guard("users", {"id": new_id()})


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
async def store(reader: InMemoryMetricReader) -> Metrics:
    memory = MemoryStore()
    await memory.open()
    return Metrics(memory, MeterProvider([reader]))


def recorded(reader: InMemoryMetricReader) -> dict[tuple[object, ...], int]:
    """How often each (operation, table, outcome) was recorded; everything else about the points is checked here."""
    counts: dict[tuple[object, ...], int] = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                assert (metric.name, metric.unit, scope.scope.name) == ("dal.store.duration", "s", "dal")
                assert isinstance(metric.data, Histogram)
                for point in metric.data.data_points:
                    attributes: Mapping[str, object] = dict(point.attributes or {})
                    assert attributes["backend"] == "memory"
                    assert set(attributes) <= {"backend", "operation", "table", "outcome"}
                    assert 0 < point.sum < 60
                    assert 0.001 in point.explicit_bounds
                    key = (attributes["operation"], attributes.get("table"), attributes["outcome"])
                    counts[key] = point.count
    return counts


async def test_reads_and_commits_are_counted_by_table_and_outcome(store: Metrics, reader: InMemoryMetricReader) -> None:
    await store.read(Count("users"))
    await store.read(Count("users"))
    await store.read(Count("messages"))
    assert await store.commit([TOUCH]) == Receipt((0,), (None,))
    with pytest.raises(ConflictError):
        await store.commit([REFUSED])
    with pytest.raises(KeyError):
        await store.read(Count("nothing"))
    assert recorded(reader) == {
        ("read", "users", "ok"): 2,
        ("read", "messages", "ok"): 1,
        ("commit", "users", "ok"): 1,
        ("commit", "users", "ConflictError"): 1,
        ("read", "nothing", "KeyError"): 1,
    }


async def test_an_empty_commit_has_no_table(store: Metrics, reader: InMemoryMetricReader) -> None:
    await store.commit([])
    assert recorded(reader) == {("commit", None, "ok"): 1}


async def test_a_transaction_is_one_call_and_so_is_each_inside(store: Metrics, reader: InMemoryMetricReader) -> None:
    async with store.transaction() as transaction:
        await transaction.read(Count("users"))
        await transaction.commit([TOUCH])
    with pytest.raises(ConflictError):
        async with store.transaction() as transaction:
            await transaction.commit([REFUSED])
    assert recorded(reader) == {
        ("read", "users", "ok"): 1,
        ("commit", "users", "ok"): 1,
        ("commit", "users", "ConflictError"): 1,
        ("transaction", None, "ok"): 1,
        ("transaction", None, "ConflictError"): 1,
    }


async def test_a_cancelled_call_is_counted_as_such(reader: InMemoryMetricReader) -> None:
    class Stuck(Layer):
        async def commit(self, ops: Sequence[Op]) -> Receipt:
            await asyncio.Event().wait()
            raise AssertionError

    task = asyncio.create_task(Metrics(Stuck(MemoryStore()), MeterProvider([reader])).commit([TOUCH]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorded(reader) == {("commit", "users", "cancelled"): 1}


async def test_a_meter_does_as_well_as_its_provider(reader: InMemoryMetricReader) -> None:
    memory = MemoryStore()
    await memory.open()
    await Metrics(memory, MeterProvider([reader]).get_meter("dal")).read(Count("users"))
    assert recorded(reader) == {("read", "users", "ok"): 1}


async def test_without_a_meter_the_global_provider_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def get_meter(name: str, meter_provider: object = None) -> api.Meter:
        asked.append((name, meter_provider))
        return api.NoOpMeterProvider().get_meter(name)

    monkeypatch.setattr(api, "get_meter", get_meter)
    memory = MemoryStore()
    await memory.open()
    assert await Metrics(memory).read(Count("users")) == [(0,)]
    assert asked == [("dal", None)]


def test_without_opentelemetry_only_the_use_of_metrics_fails() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
from dal.backends.memory import MemoryStore
from dal.errors import ConfigurationError
from dal.layers.metrics import Metrics
try:
    Metrics(MemoryStore())
except ConfigurationError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "dal[otel]" in run.stdout
