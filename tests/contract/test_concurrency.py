"""Many tasks on one DataAccess, and calls that are cancelled, on every backend and through every layer."""

from __future__ import annotations

import asyncio
import random

import pytest

from dal import AlreadyExistsError, ConflictError, DataAccess, MemoryItem, NewMessage


async def test_writers_to_one_chat_get_one_to_n(dal: DataAccess) -> None:
    await dal.chats.create("c")
    added = await asyncio.gather(*(dal.messages.add("c", "user", f"m{n}") for n in range(80)))
    assert sorted(message.sequence_number for message in added) == list(range(1, 81))
    stored = [message async for message in dal.messages.iterate("c", batch_size=33)]
    assert stored == sorted(added, key=lambda message: message.sequence_number)
    chat = await dal.chats.get("c")
    assert chat is not None
    assert (chat.message_count, chat.version) == (80, 81)


async def test_single_and_many_adds_mix_and_keep_batches_together(dal: DataAccess) -> None:
    await dal.chats.create("c")

    async def batch(name: str) -> list[int]:
        added = await dal.messages.add_many("c", [NewMessage("user", name)] * 5)
        return [message.sequence_number for message in added]

    async def single() -> list[int]:
        return [(await dal.messages.add("c", "user", "single")).sequence_number]

    found = await asyncio.gather(*(batch(str(n)) if n % 3 == 0 else single() for n in range(30)))
    assert sorted(number for numbers in found for number in numbers) == list(range(1, 71))
    assert all(numbers == list(range(numbers[0], numbers[0] + len(numbers))) for numbers in found)


async def test_of_tasks_that_expect_one_number_one_wins(dal: DataAccess) -> None:
    await dal.chats.create("c")
    attempts = (dal.messages.add("c", "user", f"m{n}", expected_sequence=1) for n in range(12))
    results = await asyncio.gather(*attempts, return_exceptions=True)
    winners = [result for result in results if not isinstance(result, BaseException)]
    assert len(winners) == 1
    assert all(type(result) is ConflictError for result in results if isinstance(result, BaseException))
    assert await dal.messages.history("c") == winners


async def test_repeats_of_one_add_at_once_are_one_message(dal: DataAccess) -> None:
    await dal.chats.create("c")
    given = "01900000-0000-7000-8000-0000000abcde"
    results = await asyncio.gather(*(dal.messages.add("c", "user", "same", id=given) for _ in range(16)))
    assert all(result == results[0] for result in results)
    assert await dal.messages.history("c") == [results[0]]


async def test_of_tasks_that_create_one_key_one_wins(dal: DataAccess) -> None:
    results = await asyncio.gather(*(dal.chats.create("c", title=str(n)) for n in range(16)), return_exceptions=True)
    winners = [result for result in results if not isinstance(result, BaseException)]
    assert len(winners) == 1
    assert all(type(result) is AlreadyExistsError for result in results if isinstance(result, BaseException))
    assert await dal.chats.get("c") == winners[0]


async def test_tasks_that_set_one_memory_key_each_count(dal: DataAccess) -> None:
    user = await dal.users.create()
    items: list[MemoryItem] = await asyncio.gather(*(dal.memory.set(user.id, "t", "k", n) for n in range(24)))
    assert sorted(item.version for item in items) == list(range(1, 25))
    assert len({item.id for item in items}) == 1
    assert await dal.memory.list(user.id) == [item for item in items if item.version == 24]


async def test_a_refused_call_refuses_no_other(dal: DataAccess) -> None:
    await dal.chats.create("c")
    taken = (await dal.messages.add("c", "user", "taken")).id

    async def add(n: int) -> object:
        return await dal.messages.add("c", "user", f"m{n}", id=taken if n % 4 == 0 else None)

    results = await asyncio.gather(*(add(n) for n in range(40)), return_exceptions=True)
    assert [type(result) for result in results[::4]] == [AlreadyExistsError] * 10
    assert not any(isinstance(result, BaseException) for n, result in enumerate(results) if n % 4)
    assert [message.sequence_number for message in await dal.messages.history("c", limit=100)] == list(range(1, 32))


async def test_a_reader_sees_messages_in_their_order_while_they_come(dal: DataAccess) -> None:
    await dal.chats.create("c")
    done = asyncio.Event()

    async def watch() -> None:
        most = 0
        while not done.is_set():
            numbers = [message.sequence_number for message in await dal.messages.history("c", limit=1000)]
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(numbers) >= most, "what was seen stays"
            most = len(numbers)
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(dal.messages.add("c", "user", f"m{n}") for n in range(60)))
    done.set()
    await watcher


async def test_deletes_and_writes_at_once_leave_no_orphan(dal: DataAccess) -> None:
    user = await dal.users.create()
    for n in range(4):
        await dal.chats.create(f"c{n}", user_id=user.id)

    async def write(n: int) -> None:
        await dal.messages.add(f"c{n % 4}", "user", "orphan")
        await dal.memory.set(user.id, "t", str(n), n)

    writes = [write(n) for n in range(24)]
    deletes = [dal.chats.delete("c0"), dal.users.delete(user.id), dal.chats.delete("c1")]
    await asyncio.gather(*writes[:12], *deletes, *writes[12:], return_exceptions=True)
    assert await dal.memory.list(user.id) == []
    found = await dal.messages.search("orphan", limit=1000)
    assert {hit.message.chat_id for hit in found.items} <= {"c2", "c3"}
    for key in ("c2", "c3"):
        chat = await dal.chats.get(key)
        assert chat is not None
        assert chat.user_id is None
        assert chat.message_count == await dal.messages.count(key) == len(await dal.messages.history(key, limit=100))


async def test_cancelled_calls_happen_whole_or_not_at_all(dal: DataAccess) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    await dal.chats.create("c")
    finished: list[str] = []

    async def add(n: int) -> None:
        finished.extend(m.content for m in await dal.messages.add_many("c", [NewMessage("user", f"{n}")] * 3))

    for wave in range(3):
        tasks = [asyncio.create_task(add(100 * wave + n)) for n in range(30)]
        for task in dice.sample(tasks, 20):
            for _ in range(dice.randrange(5)):
                await asyncio.sleep(0)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results), results
    async with dal.transaction() as tx:  # one snapshot: a cancelled call may still be on its way
        stored = [message async for message in tx.messages.iterate("c")]
        count = await tx.messages.count("c")
    assert [message.sequence_number for message in stored] == list(range(1, len(stored) + 1))
    assert count == len(stored)
    contents = [message.content for message in stored]
    assert all(contents[n : n + 3] == [contents[n]] * 3 for n in range(0, len(contents), 3))
    assert set(finished) <= set(contents)
    assert (await dal.messages.add("c", "user", "after")).sequence_number >= len(stored) + 1
    assert (await dal.health()).status == "ok"


async def test_a_hundred_tasks_of_everything_at_once(dal: DataAccess) -> None:
    users = [await dal.users.create(clerk_id=f"u{n}") for n in range(4)]
    for n in range(4):
        await dal.chats.create(f"c{n}", user_id=users[n].id)

    async def one(n: int) -> None:
        user, chat = users[n % 4], f"c{n % 4}"
        await dal.messages.add(chat, "user", f"word {n}")
        assert await dal.users.get(user.id) is not None
        await dal.memory.set(user.id, "t", f"k{n}", n)
        assert await dal.memory.get(user.id, "t", f"k{n}") == n
        assert len(await dal.messages.history(chat, limit=5)) >= 1
        await dal.audit.record("act", user_id=user.id)
        assert (await dal.chats.list(user_id=user.id)).items[0].chat_id == chat
        if n % 10 == 0:
            assert (await dal.messages.search(f"word {n}", limit=1)).items

    async with asyncio.timeout(60):
        await asyncio.gather(*(one(n) for n in range(100)))
    assert [await dal.messages.count(f"c{n}") for n in range(4)] == [25] * 4
    assert len((await dal.audit.list()).items) == 100


@pytest.mark.parametrize("size", [1, 500])
async def test_iterate_is_exact_while_others_write(dal: DataAccess, size: int) -> None:
    await dal.chats.create("c")
    await dal.messages.add_many("c", [NewMessage("user", "x")] * 20)

    async def read() -> list[int]:
        return [message.sequence_number async for message in dal.messages.iterate("c", batch_size=size)]

    reader = asyncio.create_task(read())
    await asyncio.gather(*(dal.messages.add("c", "user", "y") for _ in range(20)))
    seen = await reader
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) >= 20
