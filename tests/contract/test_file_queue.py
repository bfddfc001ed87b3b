"""`dal.files.queue`: work on files, taken once each, on every backend and through every layer."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from dal import AlreadyExistsError, ConflictError, DataAccess, InvalidInputError
from dal.testing import FakeClock
from dal.values import new_id


async def test_each_of_many_takers_gets_what_it_asks_for_while_there_is_enough(dal: DataAccess) -> None:
    for number in range(26):
        await dal.files.queue.enqueue("t", priority=number % 3)
    taken = await asyncio.gather(*(dal.files.queue.take(f"w{n}", limit=3) for n in range(8)))
    assert [len(some) for some in taken] == [3] * 8
    for name, some in enumerate(taken):
        for task in some:
            assert (task.lease_owner, task.attempts, task.status) == (f"w{name}", 1, "running")
            assert await dal.files.queue.get(task.id) == task
    rest = await asyncio.gather(*(dal.files.queue.take(f"late-{n}", limit=3) for n in range(2)))
    taken += rest
    assert sum(map(len, rest)) == 2
    assert len({task.id for some in taken for task in some}) == sum(map(len, taken)) == 26


async def test_takers_of_leases_that_are_over_take_each_once(dal: DataAccess, clock: FakeClock) -> None:
    for number in range(6):
        await dal.files.queue.enqueue("t", max_attempts=1 + number % 2)
    assert len(await dal.files.queue.take("dies", lease_s=10, limit=6)) == 6
    await dal.files.queue.enqueue("new")
    clock.advance(10)
    taken = await asyncio.gather(*(dal.files.queue.take(f"w{n}", limit=1) for n in range(4)))
    assert [len(some) for some in taken] == [1] * 4
    assert sorted(task.attempts for some in taken for task in some) == [1, 2, 2, 2]
    assert len((await dal.files.queue.list(status="dead")).items) == 3
    assert await dal.files.queue.take("late") == []


async def test_a_task_is_taken_when_its_time_has_come_and_done_once(dal: DataAccess, clock: FakeClock) -> None:
    later = await dal.files.queue.enqueue("t", run_at=clock.now + timedelta(seconds=1), priority=9)
    other = await dal.files.queue.enqueue("other", payload={"n": 1}, file_id="f")
    assert await dal.files.queue.take("w", tasks=["t", "none"]) == []
    clock.advance(1)
    [late] = await dal.files.queue.take("w", tasks=["t"])
    assert (late.id, late.attempts, late.status, late.lease_owner) == (later.id, 1, "running", "w")
    assert late.lease_until == clock.now + timedelta(seconds=60)
    done = await dal.files.queue.finish(late)
    assert (done.status, done.completed_at, done.lease_owner) == ("done", clock.now, None)
    with pytest.raises(ConflictError):
        await dal.files.queue.finish(late)
    assert await dal.files.queue.get(later.id) == done
    assert (await dal.files.queue.list()).items == [other, done]  # made at one moment: the later id first
    assert (await dal.files.queue.list(file_id="f", task="other", status="pending")).items == [other]


async def test_the_most_urgent_task_is_taken_first(dal: DataAccess) -> None:
    made = [await dal.files.queue.enqueue("t", priority=p) for p in (0, 5, -1, 5)]
    order = [(await dal.files.queue.take("w"))[0].id for _ in made]
    assert order == [made[1].id, made[3].id, made[0].id, made[2].id]


async def test_a_lease_that_is_over_lets_another_take_the_task(dal: DataAccess, clock: FakeClock) -> None:
    await dal.files.queue.enqueue("t", max_attempts=2)
    [mine] = await dal.files.queue.take("slow", lease_s=10)
    mine = await dal.files.queue.extend(mine, lease_s=20)
    clock.advance(19.9)
    assert await dal.files.queue.take("other") == []
    clock.advance(0.1)
    [theirs] = await dal.files.queue.take("other", lease_s=10)
    assert (theirs.id, theirs.attempts, theirs.lease_owner) == (mine.id, 2, "other")
    for late in (dal.files.queue.finish(mine), dal.files.queue.fail(mine, "x"), dal.files.queue.extend(mine)):
        with pytest.raises(ConflictError):
            await late
    clock.advance(10)
    assert await dal.files.queue.take("third") == []  # its worker died with its last attempt
    dead = await dal.files.queue.get(mine.id)
    assert dead is not None
    assert dead.status == "dead"


async def test_a_task_that_fails_waits_longer_each_time_and_dies(dal: DataAccess, clock: FakeClock) -> None:
    task = await dal.files.queue.enqueue("t", max_attempts=3)
    waits = []
    for _ in range(3):
        [mine] = await dal.files.queue.take("w")
        failed = await dal.files.queue.fail(mine, "no luck")
        waits.append((failed.run_at - clock.now).total_seconds() if failed.status == "pending" else None)
        assert await dal.files.queue.take("w") == []
        clock.now = failed.run_at if failed.status == "pending" else clock.now
    assert waits == [30.0, 60.0, None]
    [dead] = (await dal.files.queue.list(status="dead")).items
    assert (dead.id, dead.last_error, dead.attempts) == (task.id, "no luck", 3)
    assert (await dal.files.queue.revive(task.id)) is not None
    assert await dal.files.queue.revive(task.id) is None
    [mine] = await dal.files.queue.take("w")
    await dal.files.queue.finish(mine)
    assert await dal.files.queue.purge(before=clock.now) == 0
    clock.advance(1)
    assert await dal.files.queue.purge(before=clock.now) == 1
    assert await dal.files.queue.get(task.id) is None


async def test_a_task_that_cannot_be_is_refused_and_a_repeat_is_harmless(dal: DataAccess) -> None:
    given = new_id()
    task = await dal.files.queue.enqueue("t", id=given)
    assert await dal.files.queue.enqueue("t", id=given) == task
    with pytest.raises(AlreadyExistsError):
        await dal.files.queue.enqueue("other", id=given)
    for call in (
        dal.files.queue.enqueue(""),
        dal.files.queue.enqueue("t", max_attempts=0),
        dal.files.queue.take(""),
        dal.files.queue.take("w", limit=101),
        dal.files.queue.take("w", lease_s=0),
        dal.files.queue.take("w", lease_s=1e-7),
        dal.files.queue.take("w", lease_s=True),
        dal.files.queue.take("w", lease_s="60"),  # type: ignore[arg-type]
        dal.files.queue.take("w", limit=True),
        dal.files.queue.extend(task, lease_s=float("nan")),
        dal.files.queue.enqueue("t", priority=True),
        dal.files.queue.enqueue("t", max_attempts=True),
        dal.files.queue.fail(task, "why", retry_in_s=True),
        dal.files.queue.fail(task, "why", retry_in_s=-1),
        dal.files.queue.fail(task, "why", retry_in_s=float("nan")),
        dal.files.queue.fail(task, "why", retry_in_s=1e300),
        dal.files.queue.fail(task, "why", retry_in_s="1"),  # type: ignore[arg-type]
        dal.files.queue.purge(before=task.created_at, status="running"),
    ):
        with pytest.raises(InvalidInputError):
            await call
    assert await dal.files.queue.get("no uuid") is None
    assert await dal.files.queue.get(task.id) == task


async def test_a_task_that_failed_a_thousand_times_waits_an_hour(dal: DataAccess, clock: FakeClock) -> None:
    await dal.files.queue.enqueue("t", max_attempts=10_000)
    [task] = await dal.files.queue.take("w")
    failed = await dal.files.queue.fail(task.model_copy(update={"attempts": 5_000}), "why")
    assert failed.run_at == clock.now + timedelta(hours=1)


async def test_a_task_whose_id_is_none_is_nobody_s(dal: DataAccess) -> None:
    queue = dal.files.queue
    await queue.enqueue("t")
    [task] = await queue.take("w")
    for id in ("zz", "", "a\0b", new_id()):
        other = task.model_copy(update={"id": id})
        for call in (queue.extend(other), queue.finish(other), queue.fail(other, "why")):
            with pytest.raises(ConflictError):
                await call
        assert await queue.revive(id) is None
    assert (await queue.finish(task)).status == "done"
