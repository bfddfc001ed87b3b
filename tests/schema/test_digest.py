"""Content digests: the same for the same rows in any order, another for any other value, on real engines."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dal.schema.backups import digest_sqlite
from dal.schema.backups.digest import TableDigest, compare_digests, content_digests
from tests.engines import postgres
from tests.engines.d1 import D1Engine
from tests.schema.opened import execute, opened


async def digests(url: str) -> dict[str, TableDigest]:
    async with opened(url) as connection:
        return await content_digests(connection)


def is_sqlite(url: str) -> bool:
    return url.startswith("sqlite")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path}/dal.db"


@pytest.fixture
def postgresql_url(postgres_server: postgres.PostgresServer) -> str:
    return postgres_server.create_database()


async def test_an_empty_database_has_no_tables(url: str) -> None:
    assert await digests(url) == {}


async def test_the_order_of_rows_and_columns_does_not_matter(url: str) -> None:
    values = [f"({n}, 'text {n}')" for n in range(50)]
    execute(url, "CREATE TABLE a (id INTEGER PRIMARY KEY, t TEXT)", f"INSERT INTO a VALUES {', '.join(values)}")
    first = (await digests(url))["a"]
    random.shuffle(values)
    execute(
        url, "DROP TABLE a", "CREATE TABLE a (t TEXT, id INTEGER)", f"INSERT INTO a (id, t) VALUES {','.join(values)}"
    )
    assert first.rows == 50
    assert (await digests(url))["a"] == first


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("NULL", "''"),
        ("''", "' '"),
        ("'a'", "'A'"),
        ("'é'", "'e\u0301'"),
        ("'1'", "'1.0'"),
        ("'{\"a\":1}'", "'{\"a\": 1}'"),
        ("'NULL'", "NULL"),
    ],
)
async def test_texts_that_differ_have_different_digests(url: str, one: str, other: str) -> None:
    execute(url, "CREATE TABLE t (a TEXT)", f"INSERT INTO t VALUES ({one})")
    first = await digests(url)
    execute(url, "DELETE FROM t", f"INSERT INTO t VALUES ({other})")
    second = await digests(url)
    assert first["t"].rows == second["t"].rows == 1
    assert first["t"].digest != second["t"].digest


async def test_each_type_of_sqlite_has_values_of_its_own(sqlite_url: str) -> None:
    values = [
        "1",
        "'1'",
        "1.0",
        "x'31'",
        "NULL",
        "'NULL'",
        "0.1",
        "0.1 + 1e-17 * 2",
        "-0.5",
        "9007199254740993",
        "9e999",
    ]
    values += [
        "9007199254740992",
        "'a' || char(0) || 'b'",
        "'a'",
        "CAST(x'ff' AS TEXT)",
        "x'ff'",
        "CAST(x'fe' AS TEXT)",
    ]
    found = set()
    for value in values:
        execute(sqlite_url, "DROP TABLE IF EXISTS t", "CREATE TABLE t (a)", f"INSERT INTO t VALUES ({value})")
        found.add((await digests(sqlite_url))["t"])
    assert len(found) == len(values)


async def test_each_value_of_postgresql_counts_whatever_its_type(postgresql_url: str) -> None:
    execute(
        postgresql_url,
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE TYPE pair AS (a INT, m mood)",
        "CREATE DOMAIN short AS TEXT CHECK (length(VALUE) < 9)",
    )
    for kind, values in {
        "numeric": ("1", "1.0", "1.00", "'NaN'"),
        "float8": ("1", "'-0'", "0", "'NaN'", "'Infinity'", "1.0000000000000002"),
        "timestamptz": ("'2026-01-01 00:00Z'", "'2026-01-01 00:00:00.000001Z'", "'infinity'"),
        "json": ("'{\"a\":1}'", "'{\"a\": 1}'", "'null'", "NULL"),
        "jsonb": ("'{\"a\":1}'", "'[]'"),
        "bytea": ("''", "'\\x00'", "NULL"),
        "text[]": ("'{}'", "'{NULL}'", "'{\"\"}'", "'{a,b}'", "'{{a},{b}}'"),
        "mood": ("'sad'", "'ok'"),
        "mood[]": ("'{sad}'", "'{sad,sad}'"),
        "pair": ("(1, 'sad')", "(1, 'ok')", "NULL"),
        "pair[]": ("ARRAY[(1, 'sad')::pair]", "ARRAY[(2, 'sad')::pair]"),
        "short": ("'a'", "'b'"),
        "regclass": ("'pg_class'", "'pg_type'"),
        "int4range": ("'[1,2)'", "'empty'"),
        "interval": ("'1 day'", "'24 hours'"),
        "tsvector": ("'a'", "'a:1'"),
        "uuid": ("'00000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-0000-000000000002'"),
    }.items():
        found = set()
        for value in values:
            execute(
                postgresql_url,
                "DROP TABLE IF EXISTS t",
                f"CREATE TABLE t (a {kind})",
                f"INSERT INTO t SELECT ({value})::{kind}",
            )
            found.add((await digests(postgresql_url))["t"])
        assert len(found) == len(values), kind


async def test_a_value_does_not_slip_into_the_next_column(url: str) -> None:
    execute(url, "CREATE TABLE t (a TEXT, b TEXT)", "INSERT INTO t VALUES ('ab', 'c')")
    first = await digests(url)
    execute(url, "DELETE FROM t", "INSERT INTO t VALUES ('a', 'bc')")
    assert await digests(url) != first


async def test_a_row_that_is_there_twice_counts_twice(url: str) -> None:
    execute(url, "CREATE TABLE t (a TEXT)")
    found = []
    for _ in range(4):
        found.append((await digests(url))["t"])
        execute(url, "INSERT INTO t VALUES ('same')")
    assert [digest.rows for digest in found] == [0, 1, 2, 3]
    assert len({digest.digest for digest in found}) == 4


async def test_rows_that_are_there_twice_do_not_cancel_each_other(url: str) -> None:
    execute(url, "CREATE TABLE t (a TEXT)", "INSERT INTO t VALUES ('x'), ('x')")
    first = await digests(url)
    execute(url, "UPDATE t SET a = 'y'")
    assert await digests(url) != first


async def test_a_swap_between_rows_is_seen(url: str) -> None:
    execute(url, "CREATE TABLE t (id INTEGER, a TEXT)", "INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    first = await digests(url)
    execute(url, "UPDATE t SET id = 3 - id")
    assert await digests(url) != first


async def test_a_column_more_is_another_content(url: str) -> None:
    execute(url, "CREATE TABLE t (a TEXT)", "INSERT INTO t VALUES ('x')")
    first = await digests(url)
    execute(url, "ALTER TABLE t ADD COLUMN b TEXT")
    assert await digests(url) != first


async def test_odd_names_are_names(url: str) -> None:
    names = ["User", "two words", 'a "quote"', "per%cent %s", "semi;colon", "日本🙂", "select", "a.b"]
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        execute(
            url,
            f'CREATE TABLE {quoted} ({quoted} INTEGER PRIMARY KEY, "it\'s" TEXT)',
            f"INSERT INTO {quoted} VALUES (1, 'x')",
        )
    found = await digests(url)
    assert set(found) == set(names)
    assert all(digest.rows == 1 for digest in found.values())


async def test_ledgers_count_and_the_lock_does_not(url: str) -> None:
    execute(url, "CREATE TABLE dal_migration_lock (a TEXT)", "CREATE TABLE dal_migration_details (a TEXT)")
    assert set(await digests(url)) == {"dal_migration_details"}


async def test_views_are_not_read(url: str) -> None:
    execute(
        url, "CREATE TABLE t (a INTEGER)", "CREATE VIEW v AS SELECT 1 / (a - a) AS x FROM t", "INSERT INTO t VALUES (1)"
    )
    assert set(await digests(url)) == {"t"}


async def test_tables_of_other_schemas_are_named_with_it(postgresql_url: str) -> None:
    execute(postgresql_url, "CREATE SCHEMA theirs", "CREATE TABLE theirs.t (a INT)", "CREATE TABLE t (a INT)")
    assert list(await digests(postgresql_url)) == ['"theirs"."t"', "t"]


async def test_rows_of_a_partition_count_once(postgresql_url: str) -> None:
    execute(
        postgresql_url,
        "CREATE TABLE parted (id INT) PARTITION BY RANGE (id)",
        "CREATE TABLE p1 PARTITION OF parted FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE parent (id INT)",
        "CREATE TABLE child () INHERITS (parent)",
        "CREATE TABLE bare ()",
        "INSERT INTO parted VALUES (1), (2)",
        "INSERT INTO child VALUES (1)",
        "INSERT INTO bare DEFAULT VALUES",
    )
    found = await digests(postgresql_url)
    assert {name: digest.rows for name, digest in found.items()} == {"bare": 1, "child": 1, "p1": 2, "parent": 0}


async def test_settings_of_the_session_do_not_matter(postgres_server: postgres.PostgresServer) -> None:
    url = postgres_server.create_database()
    execute(
        url,
        "CREATE TYPE stay AS (since TIMESTAMPTZ, d DATE, f FLOAT8, i INTERVAL, b BYTEA)",
        "CREATE TABLE t (a stay, at TIMESTAMPTZ)",
        "INSERT INTO t VALUES "
        "(('2026-07-01 12:00Z', '2026-07-02', 0.1::float8 + 0.2, '1 day 2 hours', '\\x00ff'), now())",
    )
    first = await digests(url)
    name = url.rsplit("/", 1)[1]
    for setting in (
        "timezone = 'Asia/Tokyo'",
        "intervalstyle = 'iso_8601'",
        "extra_float_digits = -3",
        "bytea_output = 'escape'",
    ):
        execute(url, f'ALTER DATABASE "{name}" SET {setting}')
        assert await digests(url) == first, setting


# SQLite reads in pages ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_sqlite, "_PAGE_ROWS", 3)
    monkeypatch.setattr(digest_sqlite, "_PAGE_BYTES", 200)


SHAPES = {
    "rowid": "CREATE TABLE t (a, b TEXT)",
    "integer key": "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)",
    "rowid shadowed": "CREATE TABLE t (a, b TEXT, RowId TEXT, oid TEXT)",
    "every alias shadowed": "CREATE TABLE t (a, b TEXT, rowid TEXT, oid TEXT, _rowid_ TEXT)",
    "without rowid": "CREATE TABLE t (a, b TEXT, PRIMARY KEY (b, a)) WITHOUT ROWID",
    "collated key": "CREATE TABLE t (a, b TEXT COLLATE NOCASE, PRIMARY KEY (b COLLATE BINARY DESC)) WITHOUT ROWID",
}
TEXTS = [
    "a",
    "A",
    "b",
    "B",
    "aa",
    "aA",
    "Aa",
    "AA",
    "bb",
    "bB",
    "Bb",
    "BB",
    "",
    "é",
    "x" * 500,
    "ä",
    "Ä",
    "🙂",
    "10",
    "9",
    " a",
    "y" * 150,
    "z" * 150,
]


@pytest.mark.parametrize("shape", SHAPES)
async def test_pages_pass_over_no_row_and_read_none_twice(sqlite_url: str, small_pages: None, shape: str) -> None:
    values = ", ".join(f"({number}, '{text}')" for number, text in enumerate(TEXTS))
    execute(sqlite_url, SHAPES[shape], f"INSERT INTO t (a, b) VALUES {values}")
    paged = (await digests(sqlite_url))["t"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest_sqlite, "_PAGE_ROWS", 1000)
        patch.setattr(digest_sqlite, "_PAGE_BYTES", 1_000_000)
        whole = (await digests(sqlite_url))["t"]
    assert paged == whole
    assert whole.rows == len(TEXTS)


async def test_a_page_of_any_number_of_rows_ends_the_table(sqlite_url: str, small_pages: None) -> None:
    execute(sqlite_url, "CREATE TABLE t (a)")
    for count in range(8):
        assert (await digests(sqlite_url))["t"].rows == count
        execute(sqlite_url, f"INSERT INTO t VALUES ({count})")


async def test_text_that_is_no_utf_8_is_hashed_by_its_bytes(sqlite_url: str, small_pages: None) -> None:
    key = "CREATE TABLE t (k TEXT PRIMARY KEY, b) WITHOUT ROWID"
    broken = ", ".join(f"(CAST(x'{number:02x}80' AS TEXT), {number})" for number in range(0xC8, 0xD8))
    execute(sqlite_url, key, f"INSERT INTO t VALUES {broken}", "INSERT INTO t VALUES ('fine', 1), ('日本', x'ff')")
    paged = (await digests(sqlite_url))["t"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest_sqlite, "_PAGE_ROWS", 1000)
        patch.setattr(digest_sqlite, "_PAGE_BYTES", 1_000_000)
        assert (await digests(sqlite_url))["t"] == paged
    assert paged.rows == 18
    execute(sqlite_url, "UPDATE t SET k = CAST(x'c781' AS TEXT) WHERE b = 200")
    assert (await digests(sqlite_url))["t"].digest != paged.digest


async def test_virtual_tables_count_by_what_they_store(sqlite_url: str) -> None:
    execute(sqlite_url, "CREATE VIRTUAL TABLE s USING fts5(body)", "INSERT INTO s VALUES ('hello')")
    first = await digests(sqlite_url)
    assert "s" not in first
    assert first["s_content"].rows == 1
    execute(sqlite_url, "UPDATE s SET body = 'other'")
    assert (await digests(sqlite_url))["s_content"] != first["s_content"]


async def test_the_next_number_of_a_counter_is_content(sqlite_url: str) -> None:
    execute(sqlite_url, "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO t VALUES (7)")
    first = await digests(sqlite_url)
    execute(sqlite_url, "INSERT INTO t VALUES (9)", "DELETE FROM t WHERE id = 9")
    second = await digests(sqlite_url)
    assert (second["t"], second["sqlite_sequence"] == first["sqlite_sequence"]) == (first["t"], False)


async def test_a_generated_column_that_cannot_be_computed_is_passed_over(sqlite_url: str) -> None:
    execute(sqlite_url, "CREATE TABLE t (a TEXT)", "INSERT INTO t VALUES ('no json')")
    execute(sqlite_url, "ALTER TABLE t ADD COLUMN g AS (json_extract(a, '$.x'))")
    assert (await digests(sqlite_url))["t"].rows == 1


async def test_d1_and_a_file_of_the_same_content_have_the_same_digests(
    d1_engine: D1Engine, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, small_pages: None
) -> None:
    values = ["1", "1.0", "'1'", "x'31'", "NULL", "''", "'i1'", "x''", "'a' || char(0) || 'b'", "'日本🙂'", "0.1"]
    values += ["9007199254740993", "9007199254740992", "-1", "1e300", "x'00ff'", "'" + "y" * 300 + "'"]
    statements = [
        "CREATE TABLE t (a, b TEXT)",
        f"INSERT INTO t (a) VALUES {', '.join(f'({value})' for value in values)}",
        "CREATE TABLE w (k TEXT COLLATE NOCASE, n, PRIMARY KEY (k COLLATE BINARY, n)) WITHOUT ROWID",
        "INSERT INTO w VALUES ('a', 1), ('A', 1), ('a', 2), ('Aa', 1), ('aA', 1), ('b', 1), ('B', 'x')",
        "CREATE TABLE c (id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO c VALUES (9007199254740993), (5)",
    ]
    database = d1_engine.create_database()
    d1_engine.query(database, *statements)
    for name, value in database.environment.items():
        monkeypatch.setenv(name, value)
    execute(sqlite_url, *statements)
    found = await digests(database.url)
    assert found == await digests(sqlite_url)
    assert found["t"].rows == len(values)


def test_differences_say_what_happened_to_a_table() -> None:
    one, other, more = TableDigest(1, "a"), TableDigest(1, "b"), TableDigest(2, "c")
    found = compare_digests({"a": one, "b": one, "c": one, "d": one}, {"a": one, "b": other, "c": more, "e": more})
    assert [str(difference) for difference in found] == [
        "b: 1 rows, with other content",
        "c: 2 rows instead of 1",
        "d: missing",
        "e: unexpected, 2 rows",
    ]
