"""Many tasks at once, and calls that are cancelled: nothing lost, nothing twice, nothing half done, nothing held."""

from __future__ import annotations

import asyncio
import random

from dal.errors import AlreadyExistsError
from dal.ops import Compare, Count, Insert, Op, Select, Upsert
from dal.store import Store
from dal.testing import rows


class ConcurrencyConformance:
    """Commits and reads of one store by many tasks."""

    async def test_tasks_that_append_to_one_chat_number_their_messages_without_gap_or_repeat(
        self, store: Store
    ) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(1))])
        receipts = await asyncio.gather(*(store.commit(rows.append(100 + n, 1)) for n in range(64)))
        given = [receipt.rows[1] for receipt in receipts]
        assert {row[0] for row in given if row} == set(range(1, 65))
        found = await store.read(Select("messages", order=("sequence_number",), columns=("id", "sequence_number")))
        assert {rows.number_of(row[0]): row[1] for row in found} == {
            100 + n: row[0] for n, row in enumerate(given) if row
        }
        assert await store.read(Select("chat_sessions", columns=("message_count", "version"))) == [(64, 65)]

    async def test_tasks_that_append_to_many_chats_keep_each_in_order(self, store: Store) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(n)) for n in range(1, 9)])
        batches: list[list[Op]] = []
        for n in range(40):
            # In either order: where rows are locked one after the other, two batches may embrace.
            first, second = 1 + n % 8, 1 + (n * 3) % 8
            batches.append([*rows.append(1000 + 2 * n, first), *rows.append(1001 + 2 * n, second)])
        await asyncio.gather(*(rows.commit_in_the_end(store, batch) for batch in batches))
        for n in range(1, 9):
            mine = (Compare("chat_session_id", "=", rows.row_id(n)),)
            query = Select("messages", mine, ("sequence_number",), columns=("sequence_number",))
            found = [row[0] for row in await store.read(query)]
            assert found == list(range(1, len(found) + 1))
        assert await store.read(Count("messages")) == [(80,)]

    async def test_a_reader_never_sees_a_message_before_those_ahead_of_it(self, store: Store) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(1))])
        done = asyncio.Event()
        seen: list[int] = []

        async def watch() -> None:
            while not done.is_set():
                found = await store.read(Select("messages", order=("sequence_number",), columns=("sequence_number",)))
                assert [row[0] for row in found] == list(range(1, len(found) + 1))
                seen.append(len(found))
                await asyncio.sleep(0)

        watchers = [asyncio.create_task(watch()) for _ in range(2)]
        await asyncio.gather(*(store.commit(rows.append(100 + n, 1)) for n in range(48)))
        done.set()
        await asyncio.gather(*watchers)
        assert await store.read(Count("messages")) == [(48,)]

    async def test_of_tasks_that_want_one_key_exactly_one_wins(self, store: Store) -> None:
        attempts = (store.commit([Insert("users", rows.user(n, clerk_id="wanted"))]) for n in range(32))
        results = await asyncio.gather(*attempts, return_exceptions=True)
        winners = [n for n, result in enumerate(results) if not isinstance(result, BaseException)]
        assert len(winners) == 1
        assert all(type(result) is AlreadyExistsError for n, result in enumerate(results) if n != winners[0])
        assert await rows.numbers(store, Select("users")) == winners

    async def test_tasks_that_upsert_one_key_make_one_row_and_each_counts(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1))])
        on = ("user_id", "memory_type", "key")

        def upsert(n: int) -> Upsert:
            row = rows.memory(100 + n, 1, key="k", value=n)
            return Upsert("user_memory", row, on, ("value",), {"version": 1}, returning=("version", "value"))

        receipts = await asyncio.gather(*(store.commit([upsert(n)]) for n in range(32)))
        versions = [(receipt.rows[0] or ())[0] for receipt in receipts]
        assert sorted(map(str, versions)) == sorted(map(str, range(1, 33)))
        last = next(receipt.rows[0] for receipt in receipts if receipt.rows[0] and receipt.rows[0][0] == 32)
        assert await store.read(Select("user_memory", columns=("version", "value"))) == [last]

    async def test_a_cancelled_commit_happens_whole_or_not_at_all(self, store: Store) -> None:
        seed = random.randrange(2**32)
        print(f"seed {seed}")
        dice = random.Random(seed)
        await store.commit([Insert("chat_sessions", rows.chat(1))])

        async def write(n: int) -> None:
            await store.commit([Insert("users", rows.user(n)), *rows.append(n, 1), Insert("system_logs", rows.log(n))])

        for wave in range(4):
            tasks = [asyncio.create_task(write(1000 * (wave + 1) + n)) for n in range(40)]
            for task in dice.sample(tasks, 30):
                for _ in range(dice.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results), results
            async with store.transaction() as snapshot:  # a cancelled commit may still be on its way
                there = set(await rows.numbers(snapshot, Select("users")))
                assert there == set(await rows.numbers(snapshot, Select("system_logs")))
                assert there == set(await rows.numbers(snapshot, Select("messages")))
            for n, result in enumerate(results):
                assert result is not None or 1000 * (wave + 1) + n in there, "a call that returned is kept"
        async with store.transaction() as snapshot:
            query = Select("messages", order=("sequence_number",), columns=("sequence_number",))
            found = [row[0] for row in await snapshot.read(query)]
            assert found == list(range(1, len(found) + 1))
            assert await snapshot.read(Select("chat_sessions", columns=("message_count",))) == [(len(found),)]

    async def test_a_store_still_works_after_a_storm_of_cancelled_calls(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1))])

        async def hold() -> None:
            async with store.transaction() as transaction:
                await transaction.read(Count("users"))
                await transaction.commit([Insert("system_logs", rows.log(7))])
                await asyncio.Event().wait()

        for turn in range(60):
            task: asyncio.Task[object]
            if turn % 3 == 0:
                task = asyncio.create_task(hold())
            elif turn % 3 == 1:
                task = asyncio.create_task(store.read(Select("users")))
            else:
                task = asyncio.create_task(store.commit([Insert("system_logs", rows.log(100 + turn))]))
            for _ in range(turn // 3):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert await store.read(Count("users")) == [(1,)]
        assert await store.read(Count("system_logs", (Compare("id", "=", rows.row_id(7)),))) == [(0,)]
        await asyncio.gather(*(store.commit([Insert("users", rows.user(1000 + n))]) for n in range(32)))
        async with store.transaction() as transaction:
            assert await transaction.read(Count("users")) == [(33,)]
