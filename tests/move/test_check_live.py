"""Checks beside writers and a mover: nothing in flight is ever called a difference, and in the end all is equal."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from dal.errors import AlreadyExistsError, DalError, MissingReferenceError
from dal.move.check_report import Mode
from dal.move.checking import check
from dal.move.relay import copy_dirty, mend_cascades
from dal.ops import Compare, Delete, Insert, Op, Update, Upsert, Value
from dal.replica import UNITS
from dal.store import Store
from dal.tables import TABLES
from dal.testing import rows
from tests.move.pairs import FIRST, seeded
from tests.move.replicas import Site
from tests.move.test_check_in_moves import Sites, sites

__all__ = ["sites"]

ID = rows.row_id


def operations(random: Random, number: int) -> list[Op]:
    """What an application might do: few rows, so that they are changed again and again."""
    user, chat = random.randint(1, 4), FIRST["chat_sessions"] + random.randint(0, 3)
    choices: list[list[Op]] = [
        [Update("users", {"id": ID(user)}, {"name": f"name {number}"}, {"version": 1})],
        list(rows.append(10_000 + number, chat)),
        [Delete("messages", (Compare("id", "=", ID(10_000 + random.randint(0, number))),))],
        [_upsert("user_memory", rows.memory(300 + random.randint(0, 20), user, value=number))],
        [Delete("user_memory", (Compare("id", "=", ID(300 + random.randint(0, 20))),))],
        [Insert("system_logs", rows.log(10_000 + number))],
        [Delete("chat_sessions", (Compare("id", "=", ID(chat)),))],
        [Insert("chat_sessions", rows.chat(chat, user_id=ID(user)))],
        [Delete("users", (Compare("id", "=", ID(user)),))],
        [Insert("users", seeded()["users"][user - 1])],
    ]
    return random.choice(choices)


def _upsert(table: str, row: dict[str, Value]) -> Upsert:
    return Upsert(table, row, ("id",), tuple(name for name in row if name != "id"))


async def write(store: Store, random: Random, done: asyncio.Event) -> None:
    number = random.randint(0, 1000) * 1000
    while not done.is_set():
        number += 1
        try:
            await store.commit(operations(random, number))
        except (AlreadyExistsError, MissingReferenceError):
            pass
        except DalError as error:
            if not error.retryable:
                raise
        await asyncio.sleep(0)


async def move(primary: Site, replica: Site, done: asyncio.Event) -> None:
    """Copies what is dirty, until nobody writes and nothing is."""
    units = frozenset(UNITS)
    while True:
        was_done, copied = done.is_set(), 0
        for table in TABLES:
            copied += await mend_cascades(primary.replica, replica.replica, table)
            copied += (await copy_dirty(primary.replica, replica.replica, table, 50, units)).copied
        backlog = await primary.replica.backlog()
        if was_done and not copied and not any(found.dirty for found in backlog.values()):
            return
        await asyncio.sleep(0)


@pytest.mark.parametrize("backend", ["sqlite", "file", "postgresql"], indirect=True)
async def test_nothing_in_flight_is_called_a_difference(sites: Sites) -> None:
    random, done = Random(1), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(write(sites.source.store, Random(random.random()), done))
        tasks.create_task(move(sites.source, sites.target, done))
        modes: list[Mode] = ["deep", "quick", "tail"] * 3
        stores = sites.source.store, sites.target.store
        reports = [await check(*stores, mode=mode, pause_s=0.005, mark=True) for mode in modes]
        done.set()
    assert [report.tables for report in reports if report.differences] == []
    for mode in set(modes):
        report, found = await sites.find(mode)
        assert found == []
        assert report.is_equal
