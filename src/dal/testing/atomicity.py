"""All or nothing: a batch refused for any reason, at any place in it, leaves every table as it was."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from dal.errors import AlreadyExistsError, ConflictError, DalError, MissingReferenceError
from dal.ops import Compare, Count, Delete, Guard, Insert, Op, Ref, Select, Update, Upsert
from dal.store import Store
from dal.testing import rows

_GONE: Final = rows.row_id(404)

#: One operation of each kind that is refused on the rows of `_prepare`, and the error that says so.
REFUSALS: Final[dict[str, tuple[Op, type[DalError]]]] = {
    "an id that is taken": (Insert("users", rows.user(1)), AlreadyExistsError),
    "a unique key that is taken": (Insert("users", rows.user(90, clerk_id="taken")), AlreadyExistsError),
    "an update to a key that is taken": (
        Update("chat_sessions", {"id": rows.row_id(3)}, {"chat_id": "chat-4"}),
        AlreadyExistsError,
    ),
    "an upsert that meets another key": (
        Upsert("user_memory", rows.memory(5, 1, key="other"), ("user_id", "memory_type", "key"), ("value",)),
        AlreadyExistsError,
    ),
    "a parent that is not there": (Insert("messages", rows.message(90, 404)), MissingReferenceError),
    "an update to a parent that is not there": (
        Update("chat_sessions", {"id": rows.row_id(3)}, {"user_id": _GONE}),
        MissingReferenceError,
    ),
    "a ref that finds no row": (
        Insert("messages", rows.message(90, 3, sequence_number=Ref("chat_sessions", {"id": _GONE}, "message_count"))),
        MissingReferenceError,
    ),
    "a guard without its row": (Guard("users", {"clerk_id": "nobody"}), ConflictError),
    "a guard at another version": (Guard("users", {"id": rows.row_id(1)}, {"version": 999}), ConflictError),
}


async def _prepare(store: Store) -> None:
    await store.commit(
        [
            Insert("users", rows.user(1, clerk_id="taken")),
            Insert("users", rows.user(2)),
            Insert("chat_sessions", rows.chat(3, user_id=rows.row_id(1))),
            Insert("chat_sessions", rows.chat(4, user_id=rows.row_id(2))),
            Insert("user_memory", rows.memory(5, 1)),
            *rows.append(6, 4),
        ]
    )


def _every_kind_of_write() -> list[Op]:
    """One write of each kind that is fine by itself and changes something."""
    return [
        Insert("users", rows.user(10)),
        Update("users", {"id": rows.row_id(1)}, {"name": "changed", "profile": {"a": 1}}, {"version": 1}),
        *rows.append(11, 3),
        Upsert("user_memory", rows.memory(12, 1), ("user_id", "memory_type", "key"), ("value",)),
        Upsert("user_memory", rows.memory(5, 1, value="changed"), ("user_id", "memory_type", "key"), ("value",)),
        Delete("users", (Compare("id", "=", rows.row_id(2)),)),
        Delete("chat_sessions", (Compare("chat_id", "=", "chat-4"),)),
        Insert("system_logs", rows.log(13)),
    ]


class AtomicityConformance:
    """A refused batch leaves no row."""

    @pytest.mark.parametrize("refusal", list(REFUSALS))
    async def test_a_refused_batch_leaves_no_row(self, store: Store, refusal: str) -> None:
        await _prepare(store)
        before = await rows.everything(store)
        refused, error = REFUSALS[refusal]
        writes = _every_kind_of_write()
        # An update to the name of chat-4 is refused only before chat-4 is deleted.
        last = len(writes) - 2 if isinstance(refused, Update) else len(writes)
        for position in range(last + 1):
            with pytest.raises(error) as caught:
                await store.commit([*writes[:position], refused, *writes[position:]])
            assert type(caught.value) is error
            assert caught.value.outcome == "not_applied"
            assert caught.value.backend == store.capabilities.backend
            assert await rows.everything(store) == before, f"refused at {position}"
        await store.commit(writes)
        assert await rows.everything(store) != before

    async def test_two_rows_of_one_batch_may_not_share_a_key(self, store: Store) -> None:
        with pytest.raises(AlreadyExistsError):
            await store.commit([Insert("users", rows.user(1)), Insert("users", rows.user(1))])
        with pytest.raises(AlreadyExistsError):
            await store.commit(
                [Insert("users", rows.user(1, clerk_id="k")), Insert("users", rows.user(2, clerk_id="k"))]
            )
        assert await store.read(Count("users")) == [(0,)]

    async def test_a_long_batch_is_refused_by_its_last_operation(self, store: Store) -> None:
        inserts = [Insert("system_logs", rows.log(n)) for n in range(2000)]
        with pytest.raises(ConflictError):
            await store.commit([*inserts, Guard("users", {"id": _GONE})])
        assert await store.read(Count("system_logs")) == [(0,)]
        assert (await store.commit(inserts)).counts == (1,) * 2000
        assert await store.read(Count("system_logs")) == [(2000,)]

    @pytest.mark.parametrize("refusal", list(REFUSALS))
    async def test_what_was_skipped_by_a_refusal_may_still_be_done(self, store: Store, refusal: str) -> None:
        """Also where the store prepares statements: one that a refusal skipped must not be taken for prepared."""
        await _prepare(store)
        refused, error = REFUSALS[refusal]
        repeatable: list[Op] = [
            Update("users", {"id": rows.row_id(1)}, {"name": "changed"}, {"version": 1}),
            Upsert("user_memory", rows.memory(5, 1, value="changed"), ("user_id", "memory_type", "key"), ("value",)),
            Guard("users", {"id": rows.row_id(1)}),
        ]
        for _ in range(4):
            assert (await store.commit(repeatable)).counts == (1, 1, 0)
            with pytest.raises(error):
                await store.commit([refused, *repeatable])
        async with store.transaction() as transaction:
            for _ in range(4):
                assert (await transaction.commit(repeatable)).counts == (1, 1, 0)
                with pytest.raises(error):
                    await transaction.commit([refused, *repeatable])
        assert await store.read(Select("users", order=("id",), columns=("version",))) == [(9,), (1,)]

    async def test_what_a_refusal_skipped_in_a_fresh_transaction_may_still_be_done(self, store: Store) -> None:
        refused, update = Guard("users", {"id": _GONE}), Update("users", {"id": rows.row_id(1)}, add={"version": 1})
        async with store.transaction() as transaction:
            for _ in range(4):
                with pytest.raises(ConflictError):
                    await transaction.commit([refused, update])
                assert (await transaction.commit([update])).counts == (0,)
                with pytest.raises(ConflictError):
                    await transaction.commit([refused, update])

    async def test_a_refused_batch_does_not_refuse_the_ones_beside_it(self, store: Store) -> None:
        """Also what a layer that merges commits must keep: each caller gets its own answer."""
        await _prepare(store)

        def batch(n: int) -> list[Op]:
            refusal = list(REFUSALS.values())[n % len(REFUSALS)][0]
            return [Insert("system_logs", rows.log(100 + n)), *([refusal] if n % 3 == 0 else [])]

        results = await asyncio.gather(*(store.commit(batch(n)) for n in range(60)), return_exceptions=True)
        for n, result in enumerate(results):
            if n % 3 == 0:
                assert type(result) is list(REFUSALS.values())[n % len(REFUSALS)][1]
            else:
                assert not isinstance(result, BaseException)
        found = await rows.numbers(store, Select("system_logs", order=("id",)))
        assert found == [100 + n for n in range(60) if n % 3]

    async def test_no_error_holds_what_was_written(self, store: Store) -> None:
        secret = "correct horse battery staple"
        await store.commit([Insert("chat_sessions", rows.chat(1)), Insert("messages", rows.message(2, 1))])
        with pytest.raises(AlreadyExistsError) as caught:
            await store.commit([Insert("messages", rows.message(2, 1, content=secret, metadata={"a": secret}))])
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value)
