"""What a store must do when told to write: every operation of the vocabulary and what its receipt says."""

from __future__ import annotations

from typing import Final

import pytest

from dal.errors import AlreadyExistsError, MissingReferenceError
from dal.ops import Compare, Count, Delete, Guard, Insert, Op, Receipt, Ref, Select, Update, Upsert, Value
from dal.store import Store
from dal.tables import TABLES
from dal.testing import rows

LOOKUP: Final = ("user_id", "memory_type", "key")


async def one(store: Store, table: str, number: int, *columns: str) -> tuple[Value, ...] | None:
    """Those columns of the row with this number; None where there is no such row."""
    found = await store.read(Select(table, (Compare("id", "=", rows.row_id(number)),), columns=columns))
    assert len(found) <= 1
    return found[0] if found else None


def _whole(table: str, number: int, **parents: int) -> Insert:
    return Insert(table, rows.whole(table, number, **{column: rows.row_id(n) for column, n in parents.items()}))


class WriteConformance:
    """Insert, Upsert, Update, Delete, and Ref inside a batch."""

    async def test_an_empty_batch_does_nothing(self, store: Store) -> None:
        assert await store.commit([]) == Receipt((), ())

    async def test_a_receipt_has_one_entry_per_operation_in_order(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1))])
        receipt = await store.commit(
            [
                Guard("users", {"id": rows.row_id(1)}, {"version": 1}),
                Insert("users", rows.user(2, name="Bo"), returning=("name", "id")),
                Update("users", {"id": rows.row_id(3)}, {"name": "nobody"}, returning=("name",)),
                Update("users", {"id": rows.row_id(1)}, {"name": "Ada"}),
                Update("users", {"id": rows.row_id(1)}, add={"version": 1}, returning=("version", "name")),
                Delete("users", (Compare("id", "in", (rows.row_id(1), rows.row_id(2))),)),
            ]
        )
        assert receipt.counts == (0, 1, 0, 1, 1, 2)
        assert receipt.rows == (None, ("Bo", rows.row_id(2)), None, None, (2, "Ada"), None)

    # -- Insert

    async def test_an_insert_keeps_every_column_of_every_table(self, store: Store) -> None:
        parents = {"users": 1, "chat_sessions": 2, "files": 3, "multipart_uploads": 4}
        for name, table in TABLES.items():
            number = parents.get(name, 9)
            of = {parent.column: rows.row_id(parents[parent.table]) for parent in table.parents}
            row = rows.whole(name, number, **of)
            receipt = await store.commit([Insert(name, row, returning=table.names)])
            assert receipt.counts == (1,)
            assert receipt.rows == (tuple(row[column] for column in table.names),)
            assert await one(store, name, number) == receipt.rows[0]

    @pytest.mark.parametrize(
        "row", [rows.user(1), rows.user(2, clerk_id="taken")], ids=["the same id", "the same unique key"]
    )
    async def test_an_insert_of_a_taken_key_is_refused(self, store: Store, row: dict[str, Value]) -> None:
        await store.commit([Insert("users", rows.user(1, clerk_id="taken", name="first"))])
        with pytest.raises(AlreadyExistsError) as caught:
            await store.commit([Insert("users", row)])
        assert caught.value.backend
        assert caught.value.outcome == "not_applied"
        assert await store.read(Select("users", columns=("id", "name"))) == [(rows.row_id(1), "first")]

    async def test_null_is_not_a_taken_key(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(n, clerk_id=None)) for n in range(3)])
        assert await store.read(Count("users")) == [(3,)]

    @pytest.mark.parametrize(
        ("table", "row"),
        [
            ("chat_sessions", rows.chat(9, user_id=rows.row_id(404))),
            ("messages", rows.message(9, 404)),
            ("user_memory", rows.memory(9, 404)),
            ("files", rows.file(9, 404)),
            ("multipart_parts", rows.whole("multipart_parts", 9, upload_id=rows.row_id(404))),
        ],
    )
    async def test_an_insert_without_its_parent_is_refused(
        self, store: Store, table: str, row: dict[str, Value | Ref]
    ) -> None:
        with pytest.raises(MissingReferenceError):
            await store.commit([Insert(table, row)])
        assert await store.read(Count(table)) == [(0,)]

    async def test_a_parent_may_come_in_the_same_batch(self, store: Store) -> None:
        ops: list[Op] = [
            Insert("users", rows.user(1)),
            Insert("chat_sessions", rows.chat(2, user_id=rows.row_id(1))),
            Insert("messages", rows.message(3, 2)),
        ]
        assert (await store.commit(ops)).counts == (1, 1, 1)

    # -- Ref

    async def test_a_ref_is_the_value_at_this_point_of_the_batch(self, store: Store) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(1))])
        receipt = await store.commit([*rows.append(11, 1), *rows.append(12, 1), *rows.append(13, 1)])
        assert receipt.counts == (1,) * 6
        assert receipt.rows[1::2] == ((1,), (2,), (3,))
        found = await store.read(Select("messages", order=("sequence_number",), columns=("id", "sequence_number")))
        assert found == [(rows.row_id(10 + n), n) for n in (1, 2, 3)]
        assert await one(store, "chat_sessions", 1, "message_count", "version") == (3, 4)

    async def test_a_ref_adds_its_constant(self, store: Store) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(1, message_count=7))])
        count = Ref("chat_sessions", {"chat_id": "chat-1"}, "message_count")
        fresh = [
            Insert(
                "messages", rows.message(10 + plus, 1, sequence_number=count._replace(plus=plus)), ("sequence_number",)
            )
            for plus in (-2, 0, 5)
        ]
        assert (await store.commit(fresh)).rows == ((5,), (7,), (12,))

    async def test_a_ref_may_carry_an_id_by_another_unique_key(self, store: Store) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(1))])
        session = Ref("chat_sessions", {"chat_id": "chat-1"}, "id")
        receipt = await store.commit(
            [Insert("messages", rows.message(2, 1, chat_session_id=session), ("chat_session_id",))]
        )
        assert receipt.rows == ((rows.row_id(1),),)

    async def test_a_ref_without_its_row_refuses_the_batch(self, store: Store) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(1))])
        gone = Ref("chat_sessions", {"chat_id": "no such chat"}, "id")
        before = await rows.everything(store)
        with pytest.raises(MissingReferenceError):
            await store.commit([Insert("messages", rows.message(2, 1, chat_session_id=gone))])
        assert await rows.everything(store) == before

    # -- Upsert

    async def test_an_upsert_of_a_new_key_is_an_insert(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1))])
        row = rows.memory(2, 1, value={"a": 1})
        names = TABLES["user_memory"].names
        upsert = Upsert("user_memory", row, LOOKUP, update=("value",), add={"version": 1}, returning=names)
        assert await store.commit([upsert]) == Receipt((1,), (tuple(row[name] for name in names),))

    async def test_an_upsert_of_a_known_key_takes_over_only_what_it_names(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1)), Insert("user_memory", rows.memory(2, 1))])
        again = rows.memory(3, 1, key="key-2", value="new", expires_at=rows.moment(9), version=50)
        update = ("value", "updated_at")
        returning = ("id", "value", "expires_at", "created_at", "updated_at", "version")
        receipt = await store.commit([Upsert("user_memory", again, LOOKUP, update, {"version": 1}, (), returning)])
        expected = (rows.row_id(2), "new", None, rows.moment(2), rows.moment(3), 2)
        assert receipt == Receipt((1,), (expected,))
        assert await store.read(Select("user_memory", columns=returning)) == [expected]

    async def test_an_upsert_may_touch_one_row_twice_in_a_batch(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1))])
        upserts = [
            Upsert(
                "user_memory", rows.memory(n, 1, key="k", value=n), LOOKUP, ("value",), {"version": 1}, (), ("version",)
            )
            for n in (5, 6, 7)
        ]
        assert (await store.commit(upserts)).rows == ((1,), (2,), (3,))
        assert await store.read(Select("user_memory", columns=("id", "value"))) == [(rows.row_id(5), 7)]

    async def test_an_upsert_whose_condition_does_not_hold_writes_nothing(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1)), Insert("user_memory", rows.memory(2, 1, value="old"))])
        again = rows.memory(3, 1, key="key-2", value="new")
        stale, fresh = ((Compare("version", "=", version),) for version in (7, 1))
        upsert = Upsert("user_memory", again, LOOKUP, ("value",), {"version": 1}, stale, ("value", "version"))
        assert await store.commit([upsert]) == Receipt((0,), (None,))
        assert await one(store, "user_memory", 2, "value", "version") == ("old", 1)
        assert await store.commit([upsert._replace(where=fresh)]) == Receipt((1,), (("new", 2),))

    @pytest.mark.parametrize(("expires", "written"), [(None, False), (5, False), (6, False), (7, True)])
    async def test_an_upsert_may_ask_that_a_time_has_come(
        self, store: Store, expires: int | None, written: bool
    ) -> None:
        at = None if expires is None else rows.moment(expires)
        item = rows.memory(2, 1, expires_at=at)
        await store.commit([Insert("users", rows.user(1)), Insert("user_memory", item)])
        condition = (Compare("expires_at", ">", rows.moment(6)),)
        upsert = Upsert("user_memory", item | {"value": "new"}, LOOKUP, ("value",), where=condition)
        assert (await store.commit([upsert])).counts == (int(written),)

    async def test_an_upsert_that_meets_another_rows_key_is_refused(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1)), Insert("user_memory", rows.memory(2, 1))])
        with pytest.raises(AlreadyExistsError):
            await store.commit([Upsert("user_memory", rows.memory(2, 1, key="other"), LOOKUP, ("value",))])
        assert await store.read(Select("user_memory", columns=("key",))) == [("key-2",)]

    async def test_an_upsert_without_its_parent_is_refused(self, store: Store) -> None:
        with pytest.raises(MissingReferenceError):
            await store.commit([Upsert("user_memory", rows.memory(2, 404), LOOKUP, ("value",))])
        assert await store.read(Count("user_memory")) == [(0,)]

    async def test_an_upsert_on_the_id_knows_the_row_by_its_id(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1, name="old", email="kept"))])
        upsert = Upsert("users", rows.user(1, name="new", email="not taken"), ("id",), ("name",))
        assert (await store.commit([upsert])).counts == (1,)
        assert await one(store, "users", 1, "name", "email") == ("new", "kept")

    # -- Update

    async def test_an_update_sets_and_adds_and_leaves_the_rest(self, store: Store) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(1, title="old", message_count=5))])
        changes: dict[str, Value] = {"title": None, "metadata": {"a": [1]}}
        update = Update("chat_sessions", {"chat_id": "chat-1"}, changes, {"message_count": -2, "version": 1})
        assert (await store.commit([update])).counts == (1,)
        row = rows.chat(1, title=None, metadata={"a": [1]}, message_count=3, version=2)
        assert await one(store, "chat_sessions", 1) == tuple(row[name] for name in TABLES["chat_sessions"].names)

    async def test_an_update_of_no_row_counts_zero_and_is_not_refused(self, store: Store) -> None:
        update = Update("users", {"id": rows.row_id(1)}, {"name": "x"}, returning=("name",))
        assert await store.commit([update, Insert("users", rows.user(2))]) == Receipt((0, 1), (None, None))

    async def test_an_update_to_the_same_values_still_counts(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1, name="same"))])
        assert (await store.commit([Update("users", {"id": rows.row_id(1)}, {"name": "same"})])).counts == (1,)

    async def test_an_update_by_a_compound_key(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1)), Insert("user_memory", rows.memory(2, 1))])
        key: dict[str, Value] = {"user_id": rows.row_id(1), "memory_type": "fact", "key": "key-2"}
        assert (await store.commit([Update("user_memory", key, {"value": [None]})])).counts == (1,)
        assert await one(store, "user_memory", 2, "value") == ([None],)

    @pytest.mark.parametrize("table_row", [("users", "clerk_id", "taken"), ("chat_sessions", "chat_id", "chat-2")])
    async def test_an_update_to_a_taken_key_is_refused(self, store: Store, table_row: tuple[str, str, str]) -> None:
        table, column, value = table_row
        await store.commit(
            [
                Insert("users", rows.user(1)),
                Insert("users", rows.user(2, clerk_id="taken")),
                Insert("chat_sessions", rows.chat(1)),
                Insert("chat_sessions", rows.chat(2)),
            ]
        )
        before = await rows.everything(store)
        with pytest.raises(AlreadyExistsError):
            await store.commit([Update(table, {"id": rows.row_id(1)}, {column: value})])
        assert await rows.everything(store) == before

    async def test_a_key_that_was_given_up_is_free(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1, clerk_id="k"))])
        free = Update("users", {"clerk_id": "k"}, {"clerk_id": "other"})
        await store.commit([free, Insert("users", rows.user(2, clerk_id="k"))])
        await store.commit(
            [Delete("users", (Compare("clerk_id", "=", "k"),)), Insert("users", rows.user(3, clerk_id="k"))]
        )
        assert await rows.numbers(store, Select("users", (Compare("clerk_id", "=", "k"),))) == [3]
        assert await rows.numbers(store, Select("users", (Compare("clerk_id", "=", "other"),))) == [1]

    async def test_an_update_to_a_missing_parent_is_refused(self, store: Store) -> None:
        await store.commit([Insert("chat_sessions", rows.chat(1))])
        with pytest.raises(MissingReferenceError):
            await store.commit([Update("chat_sessions", {"id": rows.row_id(1)}, {"user_id": rows.row_id(404)})])
        assert await one(store, "chat_sessions", 1, "user_id") == (None,)

    # -- Delete

    async def test_a_delete_takes_exactly_the_rows_that_match(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1))])
        await store.commit([Insert("user_memory", rows.memory(n, 1)) for n in range(10, 20)])
        late = Delete("user_memory", (Compare("created_at", ">", rows.moment(12)), Compare("key", "!=", "key-15")))
        assert await store.commit([late]) == Receipt((6,), (None,))
        assert await rows.numbers(store, Select("user_memory", order=("id",))) == [10, 11, 12, 15]
        assert (await store.commit([late])).counts == (0,)

    async def test_a_delete_of_a_user_cascades_and_sets_null(self, store: Store) -> None:
        mine: dict[str, Value] = {"user_id": rows.row_id(1)}
        await store.commit(
            [
                Insert("users", rows.user(1)),
                Insert("users", rows.user(2)),
                Insert("chat_sessions", rows.chat(3, **mine)),
                Insert("messages", rows.message(4, 3)),
                Insert("user_memory", rows.memory(5, 1)),
                Insert("user_memory", rows.memory(6, 2)),
                Insert("files", rows.file(7, 1)),
                Insert("files", rows.file(8, 2)),
                Insert("system_logs", rows.log(9, user_id=rows.row_id(1))),
                *(_whole("file_permissions", n, file_id=n) for n in (7, 8)),
                *(_whole("multipart_uploads", 9 + n, user_id=n) for n in (1, 2)),
                *(_whole("multipart_parts", n, upload_id=n) for n in (10, 11)),
                _whole("user_quotas", 12, user_id=1),
                _whole("file_access_logs", 13, file_id=7),
            ]
        )
        assert (await store.commit([Delete("users", (Compare("id", "=", rows.row_id(1)),))])).counts == (1,)
        everything = await rows.everything(store)
        left = {name: [rows.number_of(row[0]) for row in found] for name, found in everything.items() if found}
        assert left == {
            "users": [2],
            "chat_sessions": [3],
            "messages": [4],
            "user_memory": [6],
            "files": [8],
            "file_permissions": [8],
            "multipart_uploads": [11],
            "multipart_parts": [11],
            "file_access_logs": [13],
            "system_logs": [9],
        }
        assert await one(store, "chat_sessions", 3, "user_id", "version") == (None, 1)
        assert await one(store, "system_logs", 9, "user_id") == (rows.row_id(1),)

    async def test_a_delete_of_a_chat_takes_its_messages_and_counts_only_the_chat(self, store: Store) -> None:
        chats: list[Op] = [Insert("chat_sessions", rows.chat(n)) for n in (1, 2)]
        await store.commit([*chats, *(Insert("messages", rows.message(10 + n, 1 + n % 2)) for n in range(6))])
        assert (await store.commit([Delete("chat_sessions", (Compare("chat_id", "=", "chat-1"),))])).counts == (1,)
        assert await rows.numbers(store, Select("messages", order=("id",))) == [11, 13, 15]

    async def test_a_delete_without_conditions_is_refused(self, store: Store) -> None:
        await store.commit([Insert("users", rows.user(1))])
        with pytest.raises(ValueError, match=r"."):
            await store.commit([Delete("users", ())])
        assert await store.read(Count("users")) == [(1,)]

    @pytest.mark.parametrize(
        "op",
        [
            Insert("no_such_table", rows.user(1)),
            Update("users", {"id": rows.row_id(1)}, {"no_such_column": 1}),
            Delete("users", (Compare("no_such_column", "=", 1),)),
            Guard("no_such_table", {"id": rows.row_id(1)}),
        ],
        ids=["insert", "update", "delete", "guard"],
    )
    async def test_an_unknown_table_or_column_is_a_programming_error_and_writes_nothing(
        self, store: Store, op: Op
    ) -> None:
        with pytest.raises((KeyError, ValueError)):
            await store.commit([Insert("users", rows.user(1)), op])
        assert await store.read(Count("users")) == [(0,)]
