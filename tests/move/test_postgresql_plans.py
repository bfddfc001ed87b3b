"""PostgreSQL's plans over a registry that is large and has no statistics, as it is in a move's first minutes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from dal.backends.postgresql import replica as postgresql
from dal.backends.sql import Executor, Statement
from dal.replica import EPOCH
from dal.tables import MESSAGES
from tests.move.replicas import Site

_ENTRIES = 5_000
_ASKED = 400


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


async def _rows_looked_at(executor: Executor, statement: Statement) -> int:
    explained = statement._replace(sql=f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.sql}", returns=True)
    ((plans,),) = (await executor.batch([explained]))[-1].rows
    (whole,) = json.loads(plans) if isinstance(plans, str) else cast("Sequence[Any]", plans)
    removed = ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
    return max(
        int(node["Actual Loops"] * (node["Actual Rows"] + sum(node.get(name, 0) for name in removed)))
        for node in _nodes(whole["Plan"])
    )


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.parametrize("state", [0, 1, 2])
async def test_keys_are_looked_up_one_by_one(site: Site, state: int) -> None:
    await site.install("primary")
    await site.raw(
        "ALTER TABLE dal_sync SET (autovacuum_enabled = off)",
        "INSERT INTO dal_sync (entity, pk, ver, deleted, state, hash) "
        f"SELECT 'messages', gen_random_uuid(), {EPOCH}, 0, {state}, 1 FROM generate_series(1, {_ENTRIES})",
    )
    ids = [str(row[0]) for row in await site.raw(f"SELECT pk FROM dal_sync LIMIT {_ASKED}")]
    assert isinstance(site.replica, postgresql.PostgresReplica)
    registry, executor = site.replica._registry, site.replica._executor
    copied = [("messages", id_, EPOCH, 0, 1) for id_ in ids]
    statements = {
        "registered": registry.registered(MESSAGES, ids),
        "entries": registry.entries(MESSAGES, ids),
        "acknowledge": Statement(postgresql._ACKNOWLEDGE, postgresql._encode_given(copied)),
        "mark_checked": Statement(
            postgresql._MARK_CHECKED, postgresql._encode_given([(name, id_, ver) for name, id_, ver, *_ in copied])
        ),
    }

    looked_at = {name: await _rows_looked_at(executor, statement) for name, statement in statements.items()}

    assert {name: rows for name, rows in looked_at.items() if rows > 2 * _ASKED} == {}
    assert all(looked_at.values())
