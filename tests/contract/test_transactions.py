"""`dal.transaction` and `dal.run_in_transaction`, on every backend and through every layer."""

from __future__ import annotations

import asyncio

import pytest

from dal import AlreadyExistsError, ConflictError, DataAccess, InvalidInputError, Transaction, UnsupportedError, User
from dal.testing.reaching import reached


class Boom(Exception):
    """Nothing the library knows."""


async def test_a_transaction_is_all(dal: DataAccess) -> None:
    async with dal.transaction() as tx:
        user = await tx.users.create(clerk_id="ada")
        await tx.chats.create("c", user_id=user.id)
        await tx.messages.add("c", "user", "one")
        await tx.messages.add_many("c", [])
        await tx.memory.set(user.id, "t", "k", "v")
        await tx.files.create(user.id, "f", storage_key="s", file_size=1)
        await tx.audit.record("login", user_id=user.id)
    assert await dal.users.get_by_clerk_id("ada") == user
    assert await dal.messages.count("c") == 1
    assert await dal.memory.get(user.id, "t", "k") == "v"
    assert await dal.files.get_by_storage_key("s") is not None
    assert len((await dal.audit.list()).items) == 1


async def test_a_transaction_is_nothing_when_it_raises(dal: DataAccess) -> None:
    user = await dal.users.create(name="old")
    await dal.chats.create("c")
    with pytest.raises(Boom):
        async with dal.transaction() as tx:
            await tx.users.update(user.id, name="new")
            await tx.users.create(clerk_id="new")
            await tx.messages.add("c", "user", "one")
            await tx.memory.set(user.id, "t", "k", "v")
            await tx.chats.delete("c")
            raise Boom
    assert await dal.users.get(user.id) == user
    assert await dal.users.get_by_clerk_id("new") is None
    assert await dal.messages.history("c") == []
    assert await dal.memory.list(user.id) == []
    assert (await dal.messages.add("c", "user", "one")).sequence_number == 1


async def test_a_transaction_sees_its_own_writes(dal: DataAccess) -> None:
    async with dal.transaction() as tx:
        user = await tx.users.create(clerk_id="ada", name="a")
        assert await tx.users.get(user.id) == user
        assert (await tx.users.update(user.id, name="b", expected_version=1)).version == 2
        assert await tx.users.get_by_clerk_id("ada") == user.model_copy(update={"name": "b", "version": 2})
        assert [found.id for found in (await tx.users.list()).items] == [user.id]
        await tx.chats.create("c", user_id=user.id)
        first = await tx.messages.add("c", "user", "word")
        second = await tx.messages.add("c", "user", "word too")
        assert (first.sequence_number, second.sequence_number) == (1, 2)
        assert await tx.messages.history("c") == [first, second]
        assert [m async for m in tx.messages.iterate("c", batch_size=1)] == [first, second]
        assert await tx.messages.count("c") == 2
        assert len((await tx.messages.search("word")).items) == 2
        await tx.memory.set(user.id, "t", "k", 1)
        assert await tx.memory.get(user.id, "t", "k") == 1
        assert await tx.memory.delete(user.id, "t") == 1
        assert await tx.memory.get(user.id, "t", "k") is None


async def test_nobody_else_sees_a_write_before_the_end(dal: DataAccess) -> None:
    with pytest.raises(Boom):
        async with dal.transaction() as tx:
            await tx.users.create(clerk_id="ada")
            reader = asyncio.create_task(dal.users.get_by_clerk_id("ada"))
            await asyncio.wait({reader}, timeout=0.2)  # a store may let the reader wait for the end
            raise Boom
    assert await reader is None


async def test_a_refused_write_leaves_the_transaction_usable(dal: DataAccess) -> None:
    await dal.users.create(clerk_id="taken")
    async with dal.transaction() as tx:
        await tx.users.create(clerk_id="one")
        with pytest.raises(AlreadyExistsError):
            await tx.users.create(clerk_id="taken")
        with pytest.raises(AlreadyExistsError):
            await tx.users.create(clerk_id="one")
        with pytest.raises(InvalidInputError):
            await tx.users.create(clerk_id="")
        await tx.users.create(clerk_id="two")
    found = {user.clerk_id for user in (await dal.users.list()).items}
    assert found == {"taken", "one", "two"}


async def test_transactions_do_not_nest(dal: DataAccess) -> None:
    async with dal.transaction() as tx:
        with pytest.raises(UnsupportedError):
            async with dal.transaction():
                pass
        with pytest.raises(UnsupportedError):
            async with tx.transaction():
                pass
        with pytest.raises(UnsupportedError):
            await dal.run_in_transaction(lambda inner: inner.users.create())
        await tx.users.create(clerk_id="still usable")
    assert await dal.users.get_by_clerk_id("still usable") is not None
    async with dal.transaction() as tx:
        await tx.users.create(clerk_id="and again")


async def test_a_write_beside_the_tasks_own_transaction_is_refused(dal: DataAccess) -> None:
    async with dal.transaction() as tx:
        with pytest.raises(UnsupportedError):
            await dal.users.create(clerk_id="beside")
        await tx.users.create(clerk_id="through")
    await dal.users.create(clerk_id="after")
    assert {user.clerk_id for user in (await dal.users.list()).items} == {"through", "after"}


async def test_an_ended_transaction_may_follow_another_in_one_task(dal: DataAccess) -> None:
    for number in range(5):
        async with dal.transaction() as tx:
            await tx.users.create(clerk_id=str(number))
    assert len((await dal.users.list()).items) == 5


async def test_run_in_transaction_gives_what_the_function_gives(dal: DataAccess) -> None:
    async def work(tx: Transaction) -> str:
        return (await tx.users.create(clerk_id="ada")).id

    made = await dal.run_in_transaction(work)
    assert await dal.users.get(made) is not None


async def test_run_in_transaction_runs_again_after_a_conflict_and_no_more_than_asked(dal: DataAccess) -> None:
    runs = 0

    async def conflicted(tx: Transaction) -> int:
        nonlocal runs
        runs += 1
        await tx.users.create(clerk_id=f"run {runs}")
        if runs < 3:
            raise ConflictError("somebody was faster", retryable=True)
        return runs

    assert await dal.run_in_transaction(conflicted, attempts=3) == 3
    assert [user.clerk_id for user in (await dal.users.list()).items] == ["run 3"]
    runs = -10
    with pytest.raises(ConflictError):
        await dal.run_in_transaction(conflicted, attempts=2)
    assert runs == -8
    runs = -10
    with pytest.raises(ConflictError):
        await dal.run_in_transaction(conflicted, attempts=1)
    assert runs == -9
    assert len((await dal.users.list()).items) == 1


async def test_run_in_transaction_lets_any_other_error_pass_at_once(dal: DataAccess) -> None:
    runs = 0

    async def broken(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        await tx.users.create(clerk_id="lost")
        raise Boom

    with pytest.raises(Boom):
        await dal.run_in_transaction(broken)
    assert runs == 1
    assert (await dal.users.list()).items == []


@pytest.mark.parametrize("attempts", [0, -1, 101, "5", True])
async def test_run_in_transaction_refuses_attempts_out_of_bounds(dal: DataAccess, attempts: int) -> None:
    async def work(tx: Transaction) -> None:
        await tx.users.create()

    with pytest.raises(InvalidInputError, match="attempts"):
        await dal.run_in_transaction(work, attempts=attempts)
    assert (await dal.users.list()).items == []


async def test_sixteen_tasks_that_contend_for_one_row_all_win(dal: DataAccess) -> None:
    user = await dal.users.create(profile={"count": 0})

    async def increment(tx: Transaction) -> int:
        found = await tx.users.get(user.id)
        assert found is not None
        count = found.profile["count"]
        assert isinstance(count, int)
        await tx.users.update(user.id, profile={"count": count + 1}, expected_version=found.version)
        return count + 1

    results = await asyncio.gather(*(dal.run_in_transaction(increment) for _ in range(16)))
    assert sorted(results) == list(range(1, 17))
    found = await dal.users.get(user.id)
    assert found is not None
    assert found.profile == {"count": 16}
    assert found.version == 17


async def test_optimistic_updates_lose_nothing_without_a_transaction(dal: DataAccess) -> None:
    user = await dal.users.create(profile={"count": 0})

    async def increment() -> None:
        while True:
            found = await dal.users.get(user.id)
            assert found is not None
            count = found.profile["count"]
            assert isinstance(count, int)
            try:
                await dal.users.update(user.id, profile={"count": count + 1}, expected_version=found.version)
            except ConflictError:
                continue
            return

    await asyncio.gather(*(increment() for _ in range(12)))
    found = await dal.users.get(user.id)
    assert found is not None
    assert (found.profile, found.version) == ({"count": 12}, 13)


async def test_a_cancelled_transaction_writes_nothing_and_holds_nothing(dal: DataAccess) -> None:
    await dal.chats.create("c")
    for ticks in range(12):
        inside = asyncio.Event()

        async def work(inside: asyncio.Event) -> None:
            async with dal.transaction() as tx:
                await tx.messages.add("c", "user", "lost")
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work(inside))
        if ticks == 0:
            await reached(inside, task)
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await dal.messages.count("c") == 0
    async with dal.transaction() as tx:
        await tx.messages.add("c", "user", "kept")
    assert await dal.messages.count("c") == 1


async def test_tasks_may_share_a_transaction(dal: DataAccess) -> None:
    async with dal.transaction() as tx:
        chat = await tx.chats.create("c")
        added = await asyncio.gather(*[tx.messages.add("c", "user", str(n)) for n in range(10)])
        users, _ = await asyncio.gather(
            asyncio.gather(*[tx.users.create(name=str(n)) for n in range(5)]),
            asyncio.gather(*[tx.messages.history("c") for _ in range(5)]),
        )
        assert {found.id for found in (await tx.users.list()).items} == {user.id for user in users}
    assert sorted(message.sequence_number for message in added) == list(range(1, 11))
    assert {message.id for message in await dal.messages.history("c", limit=20)} == {message.id for message in added}
    assert (await dal.chats.get("c")) != chat


async def test_calls_that_a_failed_block_leaves_behind_write_nothing(dal: DataAccess) -> None:
    async with dal.transaction() as other:  # so that a connection, or a lock, is there to be mistaken for the lost one
        await other.users.create(clerk_id="taken")
    left: list[asyncio.Task[object]] = []
    with pytest.raises(Boom):
        async with dal.transaction() as tx:
            left += [asyncio.create_task(tx.users.create(name=str(n))) for n in range(5)]
            await asyncio.sleep(0)
            raise Boom
    outcomes = await asyncio.gather(*left, return_exceptions=True)
    assert all(isinstance(outcome, User | UnsupportedError) for outcome in outcomes)
    with pytest.raises(UnsupportedError, match="over"):
        await tx.users.list()
    async with dal.transaction() as next_one:
        with pytest.raises(UnsupportedError, match="over"):
            await tx.users.create(name="late")
        await next_one.users.create(clerk_id="next")
    assert {user.clerk_id for user in (await dal.users.list()).items} == {"taken", "next"}
