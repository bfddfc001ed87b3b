"""Several commits kept together: all of them or none, serializable, unseen by others until the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from dal.errors import AlreadyExistsError, ConflictError, MissingReferenceError, UnsupportedError
from dal.ops import Compare, Count, Delete, Guard, Insert, Select, Sum, Update
from dal.store import ReadCommit, Store
from dal.testing import rows
from dal.testing.reaching import reached

#: How long a task waits for its rival to come as far; where transactions exclude each other the rival can not.
_RENDEZVOUS_S = 0.2


class _Boom(Exception):
    """Nothing a store knows."""


async def until_it_commits(store: Store, body: Callable[[ReadCommit], Awaitable[None]], attempts: int = 100) -> None:
    """Runs the body in a transaction, again when the store reports a conflict."""
    for _ in range(attempts):
        try:
            async with store.transaction() as transaction:
                await body(transaction)
        except ConflictError as error:
            assert error.retryable, "a serialization failure must say that repeating can help"
        else:
            return
    raise AssertionError(f"no success in {attempts} attempts")


class TransactionConformance:
    """`Store.transaction`."""

    async def test_a_transaction_sees_its_own_writes_and_keeps_them(self, store: Store) -> None:
        async with store.transaction() as transaction:
            await transaction.commit([Insert("users", rows.user(1, name="a"))])
            await transaction.commit([Update("users", {"id": rows.row_id(1)}, {"name": "b"})])
            assert await transaction.read(Select("users", columns=("name",))) == [("b",)]
            receipt = await transaction.commit([Insert("chat_sessions", rows.chat(2, user_id=rows.row_id(1)))])
            assert receipt.counts == (1,)
            receipt = await transaction.commit(rows.append(3, 2))
            assert receipt.rows == (None, (1,))
            assert (await transaction.commit(rows.append(4, 2))).rows == (None, (2,))
            assert await transaction.read(Count("messages")) == [(2,)]
        assert await store.read(Select("users", columns=("name",))) == [("b",)]
        assert await store.read(Count("messages")) == [(2,)]

    async def test_a_transaction_sees_what_was_committed_before_it(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1))])
        async with store.transaction() as transaction:
            assert await transaction.read(Count("users")) == [(1,)]

    async def test_an_exception_undoes_every_commit_of_the_transaction(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1, name="old"))])
        before = await rows.everything(store)
        with pytest.raises(_Boom):
            async with store.transaction() as transaction:
                await transaction.commit([Insert("users", rows.user(2))])
                await transaction.commit([Update("users", {"id": rows.row_id(1)}, {"name": "new"})])
                raise _Boom
        assert await rows.everything(store) == before
        await store.commit([Insert("users", rows.user(2))])

    async def test_a_cancelled_transaction_writes_nothing_and_holds_nothing(self, store: Store) -> None:
        inside = asyncio.Event()

        async def hang() -> None:
            async with store.transaction() as transaction:
                await transaction.commit([Insert("users", rows.user(1))])
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hang())
        await reached(inside, task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.read(Count("users")) == [(0,)]
        await store.commit([Insert("users", rows.user(1))])

    async def test_nobody_else_sees_a_write_before_the_transaction_ends(self, store: Store) -> None:
        """The reader starts inside the transaction. A store may let it wait; it may not show what is then undone."""
        reader: asyncio.Task[object] | None = None
        with pytest.raises(_Boom):
            async with store.transaction() as transaction:
                await transaction.commit([Insert("users", rows.user(1))])
                reader = asyncio.create_task(store.read(Count("users")))
                await asyncio.wait({reader}, timeout=_RENDEZVOUS_S)
                raise _Boom
        assert reader is not None
        assert await reader == [(0,)]

    async def test_a_refused_commit_leaves_the_transaction_usable(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1))])
        async with store.transaction() as transaction:
            await transaction.commit([Insert("users", rows.user(2))])
            with pytest.raises(AlreadyExistsError):
                await transaction.commit([Insert("users", rows.user(3)), Insert("users", rows.user(1))])
            with pytest.raises(MissingReferenceError):
                await transaction.commit([Insert("users", rows.user(4)), Insert("messages", rows.message(5, 404))])
            with pytest.raises(ConflictError):
                await transaction.commit([Insert("users", rows.user(5)), Guard("users", {"id": rows.row_id(404)})])
            assert await rows.numbers(transaction, Select("users", order=("id",))) == [1, 2]
            await transaction.commit([Insert("users", rows.user(6))])
        assert await rows.numbers(store, Select("users", order=("id",))) == [1, 2, 6]

    async def test_a_transaction_that_has_ended_takes_nothing_more(self, store: Store) -> None:
        async with store.transaction() as committed:
            await committed.commit([Insert("users", rows.user(1))])
        with pytest.raises(_Boom):
            async with store.transaction() as rolled_back:
                await rolled_back.commit([Insert("users", rows.user(2))])
                raise _Boom
        for ended in (committed, rolled_back):
            # Another one may have what it had: its connection, its lock.
            async with store.transaction() as other:
                await other.commit([Insert("users", rows.user(3))])
                with pytest.raises(UnsupportedError):
                    await ended.read(Count("users"))
                with pytest.raises(UnsupportedError):
                    await ended.commit([Insert("users", rows.user(4))])
                await other.commit([Delete("users", (Compare("id", "=", rows.row_id(3)),))])
        assert await rows.numbers(store, Select("users", order=("id",))) == [1]

    async def test_a_transaction_that_only_reads_is_fine(self, store: Store) -> None:
        async with store.transaction() as transaction:
            assert await transaction.read(Count("users")) == [(0,)]

    async def test_two_transactions_that_read_before_they_write_lose_no_update(self, store: Store) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(1))])
        both_have_read = asyncio.Barrier(2)

        async def raise_count(transaction: ReadCommit) -> None:
            (count,) = (await transaction.read(Select("chat_sessions", columns=("message_count",))))[0]
            assert isinstance(count, int)
            await _meet(both_have_read)
            changed = Update("chat_sessions", {"id": rows.row_id(1)}, {"message_count": count + 1})
            await transaction.commit([changed])

        await asyncio.gather(*(until_it_commits(store, raise_count) for _ in range(2)))
        assert await store.read(Select("chat_sessions", columns=("message_count",))) == [(2,)]

    async def test_what_a_transaction_read_still_holds_when_it_commits(self, store: Store) -> None:
        """Write skew: each may leave while the other stays; both leaving is what no serial order allows."""
        await store.commit([Insert("users", rows.user(n, status="on call")) for n in (1, 2)])
        both_have_read = asyncio.Barrier(2)

        def leave(number: int) -> Callable[[ReadCommit], Awaitable[None]]:
            async def body(transaction: ReadCommit) -> None:
                on_call = (await transaction.read(Count("users", (Compare("status", "=", "on call"),))))[0][0]
                await _meet(both_have_read)
                if on_call == 2:
                    await transaction.commit([Update("users", {"id": rows.row_id(number)}, {"status": "home"})])

            return body

        await asyncio.gather(*(until_it_commits(store, leave(number)) for number in (1, 2)))
        assert await store.read(Count("users", (Compare("status", "=", "on call"),))) == [(1,)]

    async def test_many_contending_transactions_all_win_in_the_end(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1))])
        await store.commit([Insert("files", rows.file(10 + n, 1, file_size=100)) for n in range(4)])

        def move(number: int) -> Callable[[ReadCommit], Awaitable[None]]:
            source, target = 10 + number % 4, 10 + (number + 1) % 4

            async def body(transaction: ReadCommit) -> None:
                for which, amount in ((source, -7), (target, 7)):
                    one = (Compare("id", "=", rows.row_id(which)),)
                    (size,) = (await transaction.read(Select("files", one, columns=("file_size",))))[0]
                    assert isinstance(size, int)
                    await transaction.commit(
                        [Update("files", {"id": rows.row_id(which)}, {"file_size": size + amount})]
                    )

            return body

        await asyncio.gather(*(until_it_commits(store, move(number)) for number in range(16)))
        assert await store.read(Select("files", columns=("file_size",))) == [(100,)] * 4
        assert await store.read(Sum("files", "file_size")) == [(400,)]

    async def test_commits_beside_a_transaction_are_not_lost(self, store: Store) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(1))])

        def append_two(number: int) -> Callable[[ReadCommit], Awaitable[None]]:
            async def body(transaction: ReadCommit) -> None:
                await transaction.commit(rows.append(1000 + 2 * number, 1))
                await transaction.commit(rows.append(1001 + 2 * number, 1))

            return body

        await asyncio.gather(
            *(until_it_commits(store, append_two(number)) for number in range(8)),
            *(rows.commit_in_the_end(store, rows.append(100 + number, 1)) for number in range(16)),
        )
        found = await store.read(Select("messages", order=("sequence_number",), columns=("sequence_number", "id")))
        assert [row[0] for row in found] == list(range(1, 33))
        place = {rows.number_of(row[1]): row[0] for row in found}
        for number in range(8):
            assert place[1001 + 2 * number] == int(str(place[1000 + 2 * number])) + 1, "kept together"


async def _meet(barrier: asyncio.Barrier) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(barrier.wait(), _RENDEZVOUS_S)
