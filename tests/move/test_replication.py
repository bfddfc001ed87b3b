"""From entries to operations, without a store: who wins, in what order, what gives way, what is looked for."""

from __future__ import annotations

from dal.backends import replication
from dal.backends.sql import Statement
from dal.backends.sqlite.replica import in_bulk
from dal.ops import Delete, Insert, Update, Upsert
from dal.replica import EPOCH, Key
from dal.tables import CHILDREN, TABLES
from dal.testing import rows
from tests.move.replicas import entry, keys, tombstone

ID = rows.row_id
V = EPOCH + 1


def test_only_newer_entries_win_in_the_order_of_tables_and_ids() -> None:
    given = [
        entry("files", rows.file(9, 1), V),
        entry("users", rows.user(2), V),
        entry("users", rows.user(1), V),
        tombstone("chat_sessions", ID(3), V),
    ]
    known = {Key("users", ID(2)): V, Key("users", ID(1)): V - 1, Key("files", ID(9)): V + 1}
    won = replication.winners(given, known)
    assert [one.key for one in won] == [Key("users", ID(1)), Key("chat_sessions", ID(3))]


def test_an_entry_of_version_zero_never_wins() -> None:
    assert replication.winners([tombstone("users", ID(1), 0)], {}) == []


def test_deletes_go_children_first_and_writes_parents_first() -> None:
    given = [
        tombstone("users", ID(1)),
        tombstone("messages", ID(2)),
        tombstone("messages", ID(3)),
        tombstone("chat_sessions", ID(4)),
        entry("messages", {**rows.message(5, 6), "sequence_number": 1}),
        entry("chat_sessions", rows.chat(6)),
        entry("users", rows.user(7)),
    ]
    won = replication.winners(given, {})
    ops = replication.operations(won, known={Key("users", ID(7))})
    assert [(type(op), op.table) for op in ops] == [
        (Delete, "messages"),
        (Delete, "chat_sessions"),
        (Delete, "users"),
        (Upsert, "users"),
        (Insert, "chat_sessions"),
        (Insert, "messages"),
    ]
    assert isinstance(ops[0], Delete)
    assert ops[0].where[0].value == (ID(2), ID(3))
    replacing = replication.operations(won, known=(), replacing=True)
    assert [type(op) for op in replacing[3:]] == [Upsert] * 3


def test_parked_rows_hold_nothing_that_another_could_want() -> None:
    won = [
        entry("users", rows.user(1, clerk_id="a")),
        entry("chat_sessions", rows.chat(2)),
        entry("messages", {**rows.message(3, 2), "sequence_number": 1}),
        entry("messages", {**rows.message(4, 2), "sequence_number": 2}),
        entry("user_memory", rows.memory(5, 1)),
        entry("files", rows.file(6, 1)),
        entry("system_logs", rows.log(7)),
    ]
    ops = replication.operations(won, known=keys(won), parked=keys(won[:-1]))
    parked = {(op.table, op.key["id"]): dict(op.set) for op in ops if isinstance(op, Update)}
    assert parked == {
        ("users", ID(1)): {"clerk_id": None},
        ("chat_sessions", ID(2)): {"chat_id": f"dal:parked:{ID(2)}"},
        ("messages", ID(3)): {"sequence_number": -3},
        ("messages", ID(4)): {"sequence_number": -4},
        ("user_memory", ID(5)): {"key": f"dal:parked:{ID(5)}"},
        ("files", ID(6)): {"storage_key": f"dal:parked:{ID(6)}"},
    }
    assert [type(op) for op in ops] == [Update] * 6 + [Upsert] * 7


def test_claims_are_unique_keys_without_nulls() -> None:
    won = [
        entry("users", rows.user(1)),
        entry("users", rows.user(2, clerk_id="c")),
        entry("user_memory", rows.memory(3, 2, key="k")),
        tombstone("users", ID(4)),
        entry("system_logs", rows.log(5)),
    ]
    assert replication.claims(won) == {
        ("users", ("clerk_id",)): [(Key("users", ID(2)), ("c",))],
        ("user_memory", ("user_id", "memory_type", "key")): [(Key("user_memory", ID(3)), (ID(2), "fact", "k"))],
    }
    assert replication.rivals(won) == set()
    won.append(entry("users", rows.user(6, clerk_id="c")))
    assert replication.rivals(won) == {Key("users", ID(2)), Key("users", ID(6))}


def test_parents_that_are_not_brought_along_are_looked_for() -> None:
    won = [
        entry("users", rows.user(1)),
        tombstone("users", ID(8)),
        entry("chat_sessions", rows.chat(2)),
        entry("chat_sessions", rows.chat(3, user_id=ID(9))),
        entry("user_memory", rows.memory(4, 1)),
        entry("files", rows.file(5, 8)),
        entry("files", rows.file(6, 9)),
    ]
    wanted = replication.parents(won)
    assert wanted == {
        Key("users", ID(9)): [Key("chat_sessions", ID(3)), Key("files", ID(6))],
        Key("users", ID(8)): [Key("files", ID(5))],
    }
    assert replication.missing(wanted, {Key("users", ID(9)), Key("users", ID(8))}, won) == [
        Key("users", ID(8)),
        Key("files", ID(5)),
    ]
    assert Key("users", ID(9)) in replication.missing(wanted, (), won)


def test_every_unique_key_can_be_parked() -> None:
    """Without touching a column that refers to another row."""
    for table in TABLES.values():
        values = replication._placeholders(table, ID(1), 0)
        if values is None:  # the row itself goes: only where a key is made of parents alone
            assert any(set(key) <= set(table.parent_of) for key in table.unique_keys[1:])
            assert not CHILDREN[table.name]
            continue
        assert len(values) == len(table.unique_keys) - 1
        assert not set(values) & {parent.column for parent in table.parents}
        for name, value in values.items():
            assert value is not None or table.by_name[name].nullable
            assert len(str(value)) <= (table.by_name[name].max_chars or 255)


def test_rows_of_one_text_become_statements_of_many() -> None:
    insert = "INSERT INTO users (id, name) VALUES (?, ?)"
    upsert = f"{insert} ON CONFLICT (id) DO UPDATE SET name = excluded.name"
    given = [
        Statement("UPDATE users SET name = ? WHERE id = ?", ["x", "y"]),
        Statement(insert, [[n, "a"] for n in range(293)], many=True),
        *(Statement(upsert, [n, "b"]) for n in range(2)),
        Statement("DELETE FROM users"),
    ]
    made = in_bulk(given)
    assert made[0] == given[0]
    assert made[-1] == given[-1]
    assert [(one.sql.count("(?, ?)"), len(one.params)) for one in made[1:-1]] == [
        (256, 512),
        (32, 64),
        (4, 8),
        (1, 2),
        (1, 2),
        (1, 2),
    ]
    assert [value for one in made[1:5] for value in one.params[::2]] == list(range(293))
    assert made[-2].sql == upsert
    assert not any(one.many for one in made)
