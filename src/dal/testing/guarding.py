"""What a guard must do: hold or refuse its whole batch, by values and by other rows, whatever others write."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from dal.errors import ConflictError
from dal.ops import Compare, Guard, Insert, Ref, Select, Update, Value
from dal.store import Store
from dal.testing import rows

_QUOTA: Final[dict[str, Value]] = {"user_id": rows.row_id(1)}


def quota(number: int, user_number: int, **changes: Value) -> Insert:
    """The quota of that user: 605 bytes and 100 files, none of them taken."""
    numbers: dict[str, Value] = {"max_bytes": 605, "max_files": 100, "taken_bytes": 0, "taken_files": 0}
    row = rows.whole("user_quotas", number, user_id=rows.row_id(user_number), **(numbers | changes))
    return Insert("user_quotas", row)


def _room(size: int) -> Guard:
    """Refuses a batch that would take more bytes than the quota leaves."""
    return Guard(
        "user_quotas", _QUOTA, {}, (Compare("taken_bytes", "<=", Ref("user_quotas", _QUOTA, "max_bytes", -size)),)
    )


class GuardConformance:
    """Guard alone, and among a hundred writers."""

    async def test_a_guard_that_holds_lets_the_batch_pass(self, store: Store) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(1, title=None))])
        key: dict[str, Value] = {"chat_id": "chat-1"}
        receipt = await store.commit(
            [
                Guard("chat_sessions", key),
                Guard("chat_sessions", key, {"version": 1, "status": "active", "title": None}),
                Update("chat_sessions", key, add={"version": 1}),
                Guard("chat_sessions", key, {"version": 2}),
            ]
        )
        assert receipt.counts == (0, 0, 1, 0)

    @pytest.mark.parametrize(
        "guard",
        [
            Guard("chat_sessions", {"chat_id": "no such chat"}),
            Guard("chat_sessions", {"chat_id": "chat-1"}, {"version": 2}),
            Guard("chat_sessions", {"chat_id": "chat-1"}, {"version": 1, "status": "gone"}),
            Guard("chat_sessions", {"chat_id": "chat-1"}, {"title": None}),
            Guard("chat_sessions", {"chat_id": "chat-1"}, {"user_id": rows.row_id(5)}),
        ],
        ids=str,
    )
    async def test_a_guard_that_does_not_hold_refuses_the_batch(self, store: Store, guard: Guard) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(1, title="t"))])
        before = await rows.everything(store)
        with pytest.raises(ConflictError) as caught:
            await store.commit([Insert("users", rows.user(1)), guard])
        assert caught.value.outcome == "not_applied"
        assert await rows.everything(store) == before

    async def test_a_guard_compares_with_values(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1, name="Ada")), Insert("chat_sessions", rows.chat(1))])
        holds = [
            Compare("version", "<", 2),
            Compare("version", ">=", 1),
            Compare("name", "in", ("Bo", "Ada")),
            Compare("email", "=", None),
            Compare("last_active_at", "null or >", rows.moment(5)),
            Compare("created_at", "<=", rows.moment(1)),
        ]
        of: dict[str, Value] = {"id": rows.row_id(1)}
        await store.commit([Guard("users", of, {"version": 1}, tuple(holds))])
        for fails in (Compare("version", ">", 1), Compare("name", "!=", "Ada"), Compare("name", "in", ())):
            with pytest.raises(ConflictError):
                await store.commit([Guard("users", of, {}, (*holds, fails))])
        with pytest.raises(ConflictError):
            await store.commit([Guard("users", {"id": rows.row_id(404)}, {}, tuple(holds))])
        with pytest.raises(ValueError, match="own columns"):
            await store.commit([Guard("chat_sessions", of, {}, (Compare("user_id.name", "=", "Ada"),))])

    async def test_a_guard_compares_with_its_own_row_and_with_others(self, store: Store) -> None:
        users = [Insert("users", rows.user(n)) for n in (1, 2)]
        await store.commit([*users, quota(11, 1, taken_bytes=600), quota(12, 2, max_bytes=5)])
        await store.commit([_room(5)])
        with pytest.raises(ConflictError) as caught:
            await store.commit([_room(6)])
        assert caught.value.outcome == "not_applied"
        other: dict[str, Value] = {"user_id": rows.row_id(2)}
        for plus, holds in ((595, True), (594, False)):
            where = (Compare("taken_bytes", "<=", Ref("user_quotas", other, "max_bytes", plus)),)
            if holds:
                await store.commit([Guard("user_quotas", _QUOTA, {}, where)])
                continue
            with pytest.raises(ConflictError):
                await store.commit([Guard("user_quotas", _QUOTA, {}, where)])
        nobody: dict[str, Value] = {"user_id": rows.row_id(404)}
        with pytest.raises(ConflictError):
            await store.commit(
                [
                    Guard(
                        "user_quotas",
                        _QUOTA,
                        {},
                        (Compare("max_bytes", "!=", Ref("user_quotas", nobody, "max_bytes")),),
                    )
                ]
            )

    async def test_a_guard_sees_what_the_batch_has_done_so_far(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1)), quota(11, 1)])
        take = Update("user_quotas", _QUOTA, add={"taken_bytes": 400})
        with pytest.raises(ConflictError):
            await store.commit([_room(400), take, _room(400), take])
        await store.commit([_room(400), take, Update("user_quotas", _QUOTA, add={"max_bytes": 195}), _room(400), take])
        assert await store.read(Select("user_quotas", columns=("taken_bytes",))) == [(800,)]

    async def test_a_hundred_writers_at_the_edge_never_pass_it_and_none_is_refused_while_there_is_room(
        self, store: Store
    ) -> None:
        await store.commit([Insert("users", rows.user(1)), quota(11, 1, taken_bytes=5)])

        async def take(n: int, size: int) -> int:
            change = Update("user_quotas", _QUOTA, add={"taken_bytes": size, "taken_files": 1, "version": 1})
            while True:
                try:
                    await store.commit([_room(size), change, Insert("files", rows.file(100 + n, 1))])
                except ConflictError as error:
                    if not error.retryable:
                        return 0
                else:
                    return size

        taken = await asyncio.gather(*(take(n, 10) for n in range(100)))
        assert sum(taken) == 600
        assert await store.read(Select("user_quotas", columns=("taken_bytes", "taken_files"))) == [(605, 60)]
        kept = await rows.numbers(store, Select("files", order=("id",)))
        assert kept == [100 + n for n, size in enumerate(taken) if size]

        # Half of them give back what others may then have.
        async def give_back(n: int) -> int:
            back = Update("user_quotas", _QUOTA, add={"taken_bytes": -10, "taken_files": -1, "version": 1})
            await rows.commit_in_the_end(store, [back])
            return await take(n, 10)

        assert await asyncio.gather(*(give_back(200 + n) for n in range(40))) == [10] * 40
        assert await store.read(Select("user_quotas", columns=("taken_bytes", "taken_files"))) == [(605, 60)]
