"""What lint says that D1 refuses, D1's own engine refuses, and takes what lint lets pass."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.engines.d1 import D1Engine
from tests.schema.lint.reading import base, rules_of

_TEN: Final = ", ".join(f"c{number}" for number in range(100))

_REFUSED: Final = [
    ("PRAGMA user_version = 3", "denied-on-d1"),
    ("pragma User_Version", "denied-on-d1"),
    ("PRAGMA integrity_check", "denied-on-d1"),
    ("PRAGMA journal_mode = WAL", "denied-on-d1"),
    ("PRAGMA synchronous(OFF)", "denied-on-d1"),
    ("SELECT * FROM pragma_user_version", "denied-on-d1"),
    ("ATTACH ':memory:' AS x", "denied-on-d1"),
    ("DETACH x", "denied-on-d1"),
    ("VACUUM", "denied-on-d1"),
    ("CREATE TEMP TABLE t (a)", "denied-on-d1"),
    ("CREATE TEMPORARY VIEW v AS SELECT 1", "denied-on-d1"),
    ("CREATE TABLE temp.t (a)", "denied-on-d1"),
    ("CREATE TABLE _cf_t (a)", "denied-on-d1"),
    ('CREATE INDEX "_CF_i" ON users (email)', "denied-on-d1"),
    ("SELECT load_extension('x')", "denied-on-d1"),
    ("SELECT sqlite_version()", "denied-on-d1"),
    ("CREATE VIRTUAL TABLE r USING geopoly(a)", "denied-on-d1"),
    ("CREATE VIRTUAL TABLE r USING fts4(a)", "denied-on-d1"),
    (f"CREATE TABLE wide ({_TEN}, one_more)", "d1-limit"),
    ("INSERT INTO users (id) " + " UNION ALL ".join(["SELECT 1"] * 6), "d1-limit"),
    ("CREATE VIEW v AS " + " UNION ".join(["SELECT 1 AS a"] * 6), "d1-limit"),
    ("INSERT INTO users (name) VALUES (" + " || ".join(["'a'"] * 101) + ")", "d1-limit"),
    ("DELETE FROM users WHERE " + " OR ".join(["id = 1"] * 101), "d1-limit"),
    ("INSERT INTO users (name) VALUES ('" + "é" * 50_000 + "')", "statement-too-long"),
]

_TAKEN: Final = [
    "PRAGMA foreign_key_check",
    "PRAGMA defer_foreign_keys = on",
    "PRAGMA quick_check",
    "PRAGMA table_info(users)",
    "PRAGMA main.table_info(users)",
    "SELECT * FROM pragma_table_info('users')",
    "CREATE TABLE _c_t (a)",
    "CREATE TABLE temporary (a)",
    "SELECT 'load_extension(1)', 'PRAGMA user_version'",
    f"CREATE TABLE wide ({_TEN})",
    "INSERT INTO users (id) " + " UNION ALL ".join(f"SELECT {number}" for number in range(5)),
    "SELECT * FROM (SELECT 1 UNION SELECT 2 UNION SELECT 3) UNION SELECT 4 UNION SELECT 5 UNION SELECT 6",
    "INSERT INTO users (id) VALUES " + ", ".join(f"({number})" for number in range(300)),
    "INSERT INTO users (name) VALUES (" + " || ".join(["'a'"] * 100) + ")",
    "INSERT INTO users (name) VALUES (" + "), (".join([" || ".join(["'a'"] * 60)] * 3) + ")",
    "INSERT INTO users (name) VALUES ('" + "é" * 49_900 + "')",
    "CREATE TRIGGER g AFTER INSERT ON users BEGIN UPDATE users SET name = (CASE WHEN 1 THEN 'a' END) WHERE id = 1; END",
]


@pytest.mark.parametrize(("sql", "rule"), _REFUSED)
def test_refused(d1_engine: D1Engine, tmp_path: Path, sql: str, rule: str) -> None:
    found = [one for one in rules_of(tmp_path, "d1", f"{sql};") if not one.startswith("virtual-table-export")]
    assert found == [f"{rule}:1"]
    back = rules_of(tmp_path / "back", "d1", f"{sql};", name="rollback/0002_change.sql")
    assert f"{rule}:1" in back
    database = d1_engine.create_database()
    d1_engine.query(database, *base("d1").strip().rstrip(";").split(";"))
    with pytest.raises(RuntimeError):
        d1_engine.query(database, sql)


@pytest.mark.parametrize("sql", _TAKEN)
def test_taken(d1_engine: D1Engine, tmp_path: Path, sql: str) -> None:
    assert rules_of(tmp_path, "d1", f"{sql};") == []
    database = d1_engine.create_database()
    d1_engine.query(database, *base("d1").strip().rstrip(";").split(";"))
    d1_engine.query(database, sql)


@pytest.mark.parametrize(("sql", "rule"), _REFUSED)
def test_sqlite_is_not_held_to_it(tmp_path: Path, sql: str, rule: str) -> None:
    assert not {one.partition(":")[0] for one in rules_of(tmp_path, "sqlite", f"{sql};")} & {
        "denied-on-d1",
        "d1-limit",
        "statement-too-long",
    }


@pytest.mark.parametrize("word", ["BEGIN", "commit", "SAVEPOINT a", "RELEASE a", "ROLLBACK", "END"])
def test_transaction_control_without_a_transaction(tmp_path: Path, word: str) -> None:
    assert rules_of(tmp_path, "d1", f"-- dal:no-transaction\n{word};") == ["denied-on-d1:2"]


@pytest.mark.parametrize(
    "sql", ["CREATE VIRTUAL TABLE f USING fts5(body);", "create virtual table if not exists f\nusing FTS5(a, b);"]
)
def test_full_text_search_keeps_d1_from_exporting(tmp_path: Path, sql: str) -> None:
    assert rules_of(tmp_path, "d1", sql) == ["virtual-table-export:1"]
    assert rules_of(tmp_path, "sqlite", sql) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("BEGIN\n SELECT 1;\nEND", []),
        ("begin\n SELECT 1;\nEND", ["trigger-splitting:2"]),
        ("BEGIN\n SELECT 1;\nend", ["trigger-splitting:2"]),
        ("BEGIN\n SELECT CASE WHEN 1 THEN RAISE(ABORT, 'no') END;\nEND", ["trigger-splitting:3"]),
        ("BEGIN\n SELECT (CASE WHEN 1 THEN RAISE(ABORT, 'no') END);\nEND", []),
        ('BEGIN\n SELECT \'case\', "begin" FROM (SELECT 1 AS "begin");\nEND', []),
    ],
)
def test_triggers_that_the_service_tears(tmp_path: Path, body: str, expected: list[str]) -> None:
    sql = f"CREATE TRIGGER g AFTER INSERT ON users\n{body};"
    assert rules_of(tmp_path, "d1", sql) == expected
    assert rules_of(tmp_path, "sqlite", sql) == []


def test_a_view_or_trigger_with_a_function_that_d1_lacks_is_made_and_then_fails(
    d1_engine: D1Engine, tmp_path: Path
) -> None:
    sql = "CREATE VIEW v AS SELECT sqlite_version() AS v"
    assert rules_of(tmp_path, "d1", f"{sql};") == ["denied-on-d1:1"]
    database = d1_engine.create_database()
    d1_engine.query(database, sql)
    with pytest.raises(RuntimeError, match="not authorized"):
        d1_engine.query(database, "SELECT * FROM v")
