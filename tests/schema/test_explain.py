"""Plans: a query that reads a whole table fails, however small the table is, and an index that was promised is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dal.errors import SchemaError
from dal.schema import Connection
from dal.schema.checking.explain import Explained, explain
from dal.schema.checking.query_plan import postgresql_plan, sqlite_plan
from dal.schema.checking.questions import Query, queries
from tests.schema.written import make

on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)

TABLES = """CREATE TABLE files (id INTEGER PRIMARY KEY, owner INTEGER, name TEXT, size INTEGER);
CREATE INDEX by_owner ON files (owner, name);
CREATE INDEX "by (size)" ON files (size) WHERE size > 100;
CREATE TABLE owners (id INTEGER PRIMARY KEY, nick TEXT);
INSERT INTO files VALUES (1, 1, 'a', 1), (2, 1, 'b', 200); INSERT INTO owners VALUES (1, 'x');"""


async def one(connection: Connection, script: str) -> Explained:
    (found,) = await explain(connection, queries(script, connection.engine))
    return found


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT name FROM files WHERE owner = 1", "by_owner"),
        ("SELECT id FROM files WHERE size > 100 AND size = 150", "by (size)"),
        ("SELECT f.name FROM owners o JOIN files f ON f.owner = o.id WHERE o.id = 1", "by_owner"),
        ("WITH mine AS (SELECT * FROM files WHERE owner = 1) SELECT count(*) FROM mine", "by_owner"),
        ("DELETE FROM files WHERE owner = 3", "by_owner"),
    ],
)
async def test_an_index_that_is_used_is_named(connection: Connection, query: str, index: str) -> None:
    await make(connection, TABLES)
    found = await one(connection, f"-- expect-index: nothing or {index}\n{query};")
    assert found.ok, (found.problems, found.plan_lines)
    assert index in found.indexes
    assert not found.full_scan


@pytest.mark.parametrize(
    ("query", "table"),
    [
        ("SELECT size FROM files WHERE size = 1", "files"),
        ("SELECT size FROM files WHERE name = 'a'", "files"),  # the second column of an index
        ("SELECT size FROM files f WHERE length(name) = 1", "f"),
        ("SELECT a.id FROM owners a JOIN owners b ON a.nick = b.nick WHERE a.id = 1", "b"),
        ("SELECT * FROM (SELECT name, size FROM files WHERE size < 5) AS small", "files"),
        ("UPDATE files SET size = 0 WHERE name = 'a'", "files"),
    ],
)
async def test_a_whole_table_that_is_read_fails(connection: Connection, query: str, table: str) -> None:
    await make(connection, TABLES)
    found = await one(connection, query)
    assert found.full_scan, found.plan_lines
    # SQLite knows a table by the name that the query gives it.
    assert found.full_scans in ((table,), ("files",), ("owners",))
    assert not found.ok
    assert "reads every row of" in found.problems[0]
    allowed = await one(connection, f"-- allow-scan\n{query}")
    assert allowed.ok
    assert allowed.full_scan


async def test_an_index_that_is_not_used_fails(connection: Connection) -> None:
    await make(connection, TABLES)
    found = await one(connection, "-- allow-scan\n-- expect-index: by_owner\nSELECT size FROM files WHERE name = 'a'")
    assert found.problems == ("index by_owner expected, used none",)


async def test_an_index_read_from_end_to_end_is_flagged(connection: Connection) -> None:
    await make(connection, TABLES)
    found = await one(connection, "SELECT owner, name FROM files ORDER BY owner, name")
    assert (found.ok, found.indexes, found.whole_indexes) == (True, ("by_owner",), ("by_owner",))


@pytest.mark.parametrize("query", ["SELECT 1", "VALUES (1), (2)", "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL "
                                   "SELECT n + 1 FROM r WHERE n < 3) SELECT n FROM r"])  # fmt: skip
async def test_rows_that_are_in_no_table_are_no_scan(connection: Connection, query: str) -> None:
    found = await one(connection, query)
    assert found.ok, found.plan_lines
    assert found.duration_ms is not None


async def test_statements_that_write_are_planned_and_never_run(connection: Connection) -> None:
    await make(connection, TABLES)
    writes = ["DELETE FROM files WHERE id = 1", "INSERT INTO owners VALUES (7, 'y')"]
    if connection.engine == "postgresql":
        writes.append("WITH gone AS (DELETE FROM files WHERE id = 2 RETURNING id) SELECT id FROM gone")
    for found in await explain(connection, writes):
        assert found.duration_ms is None
    assert await connection.fetch("SELECT count(*) FROM files") == [(2,)]
    assert await connection.fetch("SELECT count(*) FROM owners") == [(1,)]


async def test_the_file_of_a_set_is_read(connection: Connection, tmp_path: Path) -> None:
    assert await explain(connection, tmp_path) == []
    await make(connection, TABLES)
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "explain.sql").write_text(
        "-- Key queries of the files page.\n\n-- Files of one owner\n-- expect-index: by_owner\n"
        "SELECT name FROM files\n  WHERE owner = 1;\n\nSELECT id FROM files WHERE id = 1;\n",
        encoding="utf-8",
    )
    found = await explain(connection, tmp_path)
    assert [(entry.query.line, entry.ok) for entry in found] == [(5, True), (8, True)]
    assert found[1].query.name == "SELECT id FROM files WHERE id = 1"
    assert json.loads(json.dumps([entry.to_dict() for entry in found]))[0]["query"]["file"] == "checks/explain.sql"


async def test_a_query_that_is_wrong_is_named_by_its_place(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "explain.sql").write_text("\nSELECT nonsense FROM nowhere;\n", encoding="utf-8")
    with pytest.raises(SchemaError, match=r"checks/explain\.sql:2: .*nowhere"):
        await explain(connection, tmp_path)
    assert await connection.fetch("SELECT 1") == [(1,)]


async def test_several_statements_in_one_text_are_several_queries(connection: Connection) -> None:
    await make(connection, TABLES)
    found = await explain(connection, ["SELECT id FROM files WHERE id = 1; DELETE FROM files WHERE id = 1"])
    assert [entry.query.sql for entry in found] == [
        "SELECT id FROM files WHERE id = 1",
        "DELETE FROM files WHERE id = 1",
    ]
    assert await connection.fetch("SELECT count(*) FROM files") == [(2,)]


@on_postgresql
async def test_small_tables_tell_what_large_ones_will_do(connection: Connection) -> None:
    await make(connection, TABLES)
    await connection.run_alone("ANALYZE files")
    ((plan,),) = await connection.fetch("EXPLAIN (FORMAT JSON) SELECT name FROM files WHERE owner = 1")
    assert postgresql_plan(plan if isinstance(plan, str) else json.dumps(plan)).full_scans == ("files",)
    assert not (await one(connection, "SELECT name FROM files WHERE owner = 1")).full_scan
    assert await connection.fetch("SELECT current_setting('enable_seqscan')") == [("on",)]


@on_sqlite
async def test_an_index_made_for_the_query_alone_is_a_full_scan(connection: Connection) -> None:
    await make(connection, TABLES)
    found = await one(connection, "SELECT a.id FROM owners a JOIN owners b ON a.nick = b.nick")
    assert any("AUTOMATIC" in line for line in found.plan_lines)
    assert sorted(found.full_scans) == ["a", "b"]
    assert found.indexes == ()


def test_plans_of_older_sqlite_are_read_too() -> None:
    rows = [
        (2, 0, 0, "SCAN TABLE files AS f"),
        (3, 0, 0, "SEARCH TABLE owners USING INTEGER PRIMARY KEY (rowid=?)"),
        (4, 0, 0, "SCAN SUBQUERY 1 AS s"),
        (5, 0, 0, "SCAN TABLE files USING COVERING INDEX by_owner"),
        (6, 0, 0, "SCAN words VIRTUAL TABLE INDEX 0:M1"),
    ]
    plan = sqlite_plan(rows)
    assert (plan.full_scans, plan.indexes, plan.whole_indexes) == (
        ("files",),
        ("PRIMARY KEY", "by_owner"),
        ("by_owner",),
    )


@pytest.mark.parametrize(
    "comment", ["-- expect-indx: a", "-- expect", "-- allow-scan: yes", "-- expect-rows: many", "-- allow-scans"]
)
def test_a_comment_that_expects_something_unknown_is_refused(comment: str) -> None:
    with pytest.raises(SchemaError, match=r"f\.sql:"):
        queries(f"{comment}\nSELECT 1", "sqlite", file="f.sql")


@pytest.mark.parametrize(
    ("expected", "cells", "fits"),
    [
        ("41", [(41,)], True),
        ("41", [("41",)], True),
        ("41", [(41.0,)], True),
        ("41", [(40,)], False),
        (">= 41", [(50,)], True),
        ("<> 0", [(0,)], False),
        ("1, 2", [(1, 2)], True),
        ("1, 2", [(1,), (2,)], True),
        ("1, 2", [(1,)], False),
        ("1, 2", [(1, 2), (3, 4)], False),
        ("1", [], False),
        ("'a, b', c", [("a, b", "c")], True),
        ("'it''s'", [("it's",)], True),
        ("'1'", [("01",)], False),
        ("NULL", [(None,)], True),
        ("0", [(None,)], False),
        ("true", [(True,)], True),
        ("ok", [("ok",)], True),
    ],
)
def test_what_is_expected_of_a_query(expected: str, cells: list[tuple[object, ...]], fits: bool) -> None:
    (query,) = queries(f"-- expect: {expected}\nSELECT 1", "sqlite")
    assert (query.unmet(cells) == "") is fits, query.unmet(cells)


def test_expectations_belong_to_the_query_behind_them() -> None:
    first, second = queries("-- expect: 1\nSELECT 1; -- expect: 3\n-- expect-rows: 2\nSELECT 2", "sqlite")
    assert (first.values, first.rows) == (("1",), None)
    assert (second.values, second.rows) == (None, 2)
    assert Query(sql="SELECT 1", name="x").unmet([]) == ""
