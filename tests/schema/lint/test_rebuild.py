"""A table rebuilt on SQLite: reported exactly where the engine deletes, empties or refuses."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

import pytest

from dal.schema.connection import Place
from dal.schema.statements import split_statements
from tests.engines.d1 import D1Engine
from tests.schema.lint.reading import base, findings_of, rules_of

_REBUILD: Final = """
CREATE TABLE users_new (id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT '');
INSERT INTO users_new (id, name) SELECT id, coalesce(name, '') FROM users;
DROP TABLE users;
ALTER TABLE users_new RENAME TO users;
"""
#: The same with children that refer to the new table before the old one goes: what works on D1.
_CHILDREN_FIRST: Final = """
CREATE TABLE users_new (id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT '');
INSERT INTO users_new (id, name) SELECT id, coalesce(name, '') FROM users;
CREATE TABLE orders_new (id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users_new(id) ON DELETE CASCADE);
INSERT INTO orders_new SELECT id, user_id FROM orders;
DROP TABLE orders;
CREATE TABLE notes_new (id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users_new(id) ON DELETE NO ACTION);
INSERT INTO notes_new SELECT id, user_id FROM notes;
DROP TABLE notes;
DROP TABLE users;
ALTER TABLE users_new RENAME TO users;
ALTER TABLE orders_new RENAME TO orders;
ALTER TABLE notes_new RENAME TO notes;
"""
_VIEW_AWAY: Final = "DROP VIEW names;"
_HURT: Final = "rebuild-deletes-children"


@pytest.mark.parametrize(
    ("place", "header", "expected"),
    [
        ("sqlite", "", [f"{_HURT}:4"]),
        ("sqlite", "-- dal:foreign-keys=off", []),
        ("d1", "", [f"{_HURT}:4"]),
        ("d1", "-- dal:foreign-keys=off", [f"{_HURT}:4"]),
        ("sqlite", "PRAGMA foreign_keys = off;", ["foreign-keys-pragma:1", f"{_HURT}:4"]),
        ("d1", "PRAGMA foreign_keys = off;", ["foreign-keys-pragma:1", f"{_HURT}:4"]),
        ("sqlite", "PRAGMA defer_foreign_keys = on;", [f"{_HURT}:4"]),
        ("sqlite", f"-- dal:allow {_HURT}", []),
    ],
)
def test_a_parent_that_is_rebuilt(tmp_path: Path, place: Place, header: str, expected: list[str]) -> None:
    assert rules_of(tmp_path, place, header + _REBUILD) == expected


@pytest.mark.parametrize("place", ["sqlite", "d1"])
def test_children_that_are_rebuilt_first_are_safe(tmp_path: Path, place: Place) -> None:
    assert rules_of(tmp_path, place, _CHILDREN_FIRST) == []


@pytest.mark.parametrize("place", ["sqlite", "d1"])
def test_a_table_that_nobody_refers_to_is_rebuilt_freely(tmp_path: Path, place: Place) -> None:
    sql = _REBUILD.replace("users", "orders").replace("name", "user_id")
    assert rules_of(tmp_path, place, sql) == []


@pytest.mark.parametrize("place", ["sqlite", "d1"])
def test_references_of_a_table_to_itself_are_its_own(tmp_path: Path, place: Place) -> None:
    files = "CREATE TABLE tree (id INTEGER PRIMARY KEY, up INTEGER REFERENCES tree(id) ON DELETE CASCADE);"
    sql = files + _REBUILD.replace("users", "tree").replace("name", "up").replace("''", "0").replace(
        "DEFAULT 0", "DEFAULT 1"
    )
    assert rules_of(tmp_path, place, sql) == []


def test_the_old_table_may_be_put_aside_first(tmp_path: Path) -> None:
    sql = (
        "ALTER TABLE users RENAME TO users_old;\nCREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);\n"
        "INSERT INTO users SELECT id, name FROM users_old;\nDROP TABLE users_old;"
    )
    # The children follow the old table under its new name.
    assert rules_of(tmp_path, "sqlite", sql) == [f"{_HURT}:4"]
    assert rules_of(tmp_path, "sqlite", "-- dal:foreign-keys=off\n" + sql) == []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        # Not copied, or not there any more when the file ends: these are drops.
        (_REBUILD.replace("FROM users", "FROM orders"), ["drop-table:4"]),
        (_REBUILD.replace("RENAME TO users", "RENAME TO people"), ["drop-table:4"]),
        (_REBUILD.replace("ALTER TABLE users_new RENAME TO users;", ""), ["drop-table:4"]),
        ("CREATE TABLE u AS SELECT * FROM users;\nDROP TABLE users;\nALTER TABLE u RENAME TO users;", [f"{_HURT}:2"]),
        (
            'CREATE TABLE "U x" AS SELECT * FROM "USERS"; DROP TABLE Users; ALTER TABLE [u X] RENAME TO `users`;',
            [f"{_HURT}:1"],
        ),
    ],
)
def test_a_rebuild_copies_and_brings_the_name_back(tmp_path: Path, sql: str, expected: list[str]) -> None:
    assert rules_of(tmp_path, "sqlite", sql) == expected


def test_deferred_keys_that_do_not_act_come_right_when_the_rows_come_back(tmp_path: Path) -> None:
    sql = (
        "PRAGMA defer_foreign_keys = on; CREATE TABLE kept AS SELECT * FROM orders; DROP TABLE orders;\n"
        "CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders SELECT id FROM kept; DROP TABLE kept;"
    )
    child = "CREATE TABLE parts (id INTEGER PRIMARY KEY, o INTEGER REFERENCES orders(id) ON DELETE {});"
    assert rules_of(tmp_path, "d1", child.format("NO ACTION") + sql) == []
    assert rules_of(tmp_path, "d1", child.format("CASCADE") + sql) == [f"{_HURT}:1"]
    assert rules_of(
        tmp_path, "d1", child.format("NO ACTION") + sql.replace("INSERT INTO orders", "INSERT INTO notes")
    ) == [f"{_HURT}:1"]
    assert rules_of(tmp_path, "d1", child.format("NO ACTION") + sql.replace("= on", "= off")) == [f"{_HURT}:1"]


def test_a_way_back_that_rebuilds_is_held_to_it_too(tmp_path: Path) -> None:
    assert rules_of(tmp_path, "sqlite", _REBUILD, name="rollback/0002_change.sql") == [f"{_HURT}:4"]


def test_postgresql_refuses_by_itself(tmp_path: Path) -> None:
    found = rules_of(tmp_path, "postgresql", _REBUILD)
    assert _HURT not in [one.partition(":")[0] for one in found]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("DROP TABLE IF EXISTS users_new;", []),
        ("DROP TABLE users_new;", ["drop-table:2"]),
        ("DROP TABLE IF EXISTS orders; CREATE TABLE orders (a INTEGER);", ["drop-table:2"]),
        ("DROP TABLE IF EXISTS other;", ["drop-table:2"]),
    ],
)
def test_a_leftover_may_be_cleared_away_first(tmp_path: Path, before: str, expected: list[str]) -> None:
    assert rules_of(tmp_path, "sqlite", f"-- dal:foreign-keys=off\n{before}{_REBUILD}") == expected


def test_the_message_names_each_child_and_d1_gets_its_own_advice(tmp_path: Path) -> None:
    (finding,) = findings_of(tmp_path, "sqlite", _REBUILD)
    assert "what refers to it in orders is deleted (ON DELETE CASCADE)" in finding.message
    assert "notes refers to it, so it fails where there are rows" in finding.message
    assert "foreign-keys=off" in finding.advice
    (finding,) = findings_of(tmp_path / "d1", "d1", _REBUILD)
    assert "D1 cannot switch foreign keys off" in finding.advice


@pytest.mark.parametrize("place", ["sqlite", "d1"])
def test_replace_into_a_parent(tmp_path: Path, place: Place) -> None:
    for sql in ("REPLACE INTO users (id) VALUES (1);", "INSERT OR REPLACE INTO users (id) VALUES (1);"):
        assert rules_of(tmp_path, place, sql) == ["replace-deletes-children:1"]
    assert rules_of(tmp_path, place, "REPLACE INTO orders (id) VALUES (1);") == []
    assert rules_of(tmp_path, place, "INSERT OR IGNORE INTO users (id) VALUES (1);") == []
    assert rules_of(tmp_path, place, "SELECT replace('a', 'b', 'c');") == []


def _filled(sql: str) -> str:
    rows = (
        "INSERT INTO users (id, name) VALUES (1, 'a'); INSERT INTO orders VALUES (1, 1);"
        "INSERT INTO notes VALUES (1, NULL);"
    )
    return base("sqlite") + rows + _VIEW_AWAY + sql


@pytest.mark.parametrize(
    ("sql", "left"), [(_REBUILD, 0), (_CHILDREN_FIRST, 1), ("REPLACE INTO users (id, name) VALUES (1, 'b');", 0)]
)
def test_the_engines_do_what_the_rules_say(d1_engine: D1Engine, sql: str, left: int) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = on")
    database = d1_engine.create_database()
    for statement in split_statements(_filled(sql), "sqlite"):
        connection.execute(statement.sql)
        d1_engine.query(database, statement.sql)
    assert connection.execute("SELECT count(*) FROM orders").fetchone() == (left,)
    assert d1_engine.query(database, "SELECT count(*) FROM orders") == [[left]]
    connection.close()
