"""Inspection: every object is found under its own name, and nothing is found that nobody declared."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from dal.schema import Connection, library_set, up
from dal.schema.connection import EngineName, StatementError
from dal.schema.inspection.compare import differences
from dal.schema.inspection.objects import ForeignKeyInfo, IndexInfo, UniqueInfo, snapshot
from dal.schema.ledger import LEDGER_TABLES, creation
from tests.engines.d1 import D1Engine
from tests.schema.written import made, make

on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)

ODD_NAMES = ("CamelCase", "two words", 'quote"d', "it's", "select", "ключ", "🦊", "a.b", "semi;colon", "100%")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class CountingReader:
    """Counts reads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.engine: EngineName = connection.engine
        self.address = connection.address
        self.reads = 0

    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        self.reads += 1
        return await self._connection.fetch(sql, params)


async def test_an_empty_database_holds_nothing(connection: Connection) -> None:
    assert (await snapshot(connection)).empty


async def test_columns_keys_and_actions_are_found(connection: Connection) -> None:
    await make(
        connection,
        """CREATE TABLE teams (id INTEGER PRIMARY KEY, name VARCHAR(40) NOT NULL UNIQUE);
        CREATE TABLE users (
            team INTEGER NOT NULL REFERENCES teams ON DELETE CASCADE ON UPDATE SET NULL,
            number INTEGER NOT NULL DEFAULT 7 CHECK (number > 0),
            boss INTEGER, note TEXT,
            PRIMARY KEY (team, number),
            FOREIGN KEY (team, boss) REFERENCES users (team, number) DEFERRABLE INITIALLY DEFERRED,
            UNIQUE (note, boss)
        );""",
    )
    found = (await snapshot(connection)).tables
    assert list(found) == ["teams", "users"]
    assert found["teams"].columns["name"].type.lower() in ("varchar(40)", "character varying(40)")
    assert not found["teams"].columns["name"].nullable
    assert found["teams"].uniques == (UniqueInfo(columns=("name",)),)
    users = found["users"]
    assert list(users.columns) == ["team", "number", "boss", "note"]
    assert users.columns["number"].default == "7"
    assert users.columns["note"].default is None
    assert users.columns["note"].nullable
    assert users.primary_key == ("team", "number")
    assert users.checks == ("CHECK (number > 0)",)
    assert users.uniques == (UniqueInfo(columns=("note", "boss")),)
    assert users.foreign_keys == (
        ForeignKeyInfo(columns=("team",), table="teams", to_columns=("id",), on_delete="CASCADE", on_update="SET NULL"),
        ForeignKeyInfo(
            columns=("team", "boss"),
            table="users",
            to_columns=("team", "number"),
            deferrable="DEFERRABLE INITIALLY DEFERRED",
        ),
    )


async def test_indexes_views_and_triggers_are_found(connection: Connection) -> None:
    body = "BEGIN UPDATE t SET b = CASE WHEN b = 'x;' THEN 'y' END; END"
    if connection.engine == "postgresql":
        await make(
            connection,
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;",
        )
        body = "FOR EACH ROW EXECUTE FUNCTION f()"
    await make(
        connection,
        f"""CREATE TABLE t (a INTEGER, b TEXT, c TEXT);
        CREATE UNIQUE INDEX i_two ON t (b DESC, a);
        CREATE INDEX i_partial ON t (a) WHERE b IS NOT NULL;
        CREATE INDEX i_expression ON t (lower(b), c);
        CREATE VIEW v AS SELECT a, b FROM t WHERE a > 1;
        CREATE TRIGGER g AFTER INSERT ON t {body};""",
    )
    found = await snapshot(connection)
    assert found.indexes["i_two"] == IndexInfo(table="t", parts=("b DESC", "a"), unique=True)
    assert found.indexes["i_expression"] == IndexInfo(table="t", parts=("lower(b)", "c"))
    assert found.indexes["i_partial"] == IndexInfo(table="t", parts=("a",), where="b IS NOT NULL")
    assert "WHERE" in found.views["v"].definition
    assert found.triggers["g"].table == "t"
    assert "AFTER INSERT ON t" in found.triggers["g"].definition


async def test_odd_names_are_exact(connection: Connection) -> None:
    script = ""
    for name in ODD_NAMES:
        table, index = quoted(name), quoted(f"{name} index")
        script += f"CREATE TABLE {table} ({table} INTEGER PRIMARY KEY, up INTEGER REFERENCES {table} ({table}),"
        script += f" CHECK ({table} > 0));"
        script += f"CREATE INDEX {index} ON {table} (up, {table} DESC);"
    await make(connection, script)
    found = await snapshot(connection)
    assert sorted(found.tables) == sorted(ODD_NAMES)
    assert sorted(found.indexes) == sorted(f"{name} index" for name in ODD_NAMES)
    for name in ODD_NAMES:
        assert list(found.tables[name].columns) == [name, "up"]
        assert found.tables[name].primary_key == (name,)
        assert found.tables[name].foreign_keys == (ForeignKeyInfo(columns=("up",), table=name, to_columns=(name,)),)
        assert found.indexes[f"{name} index"].table == name
        assert len(found.indexes[f"{name} index"].parts) == 2
    assert differences(found, await made(connection, script)) == []


async def test_the_ledger_is_left_out(connection: Connection) -> None:
    await connection.run(creation(connection.engine))
    assert (await snapshot(connection)).empty
    if connection.engine == "sqlite":
        names = await connection.fetch("SELECT name FROM sqlite_master WHERE type = 'table'")
    else:
        names = await connection.fetch("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
    assert {str(name) for (name,) in names} & LEDGER_TABLES


async def test_a_hundred_tables_take_as_many_reads_as_one(connection: Connection) -> None:
    reads = []
    for count in (1, 100):
        script = "".join(f"CREATE TABLE t{count}_{i} (a INTEGER PRIMARY KEY, b INTEGER UNIQUE);" for i in range(count))
        await make(connection, script)
        reader = CountingReader(connection)
        await snapshot(reader)
        reads.append(reader.reads)
    assert reads[0] == reads[1] <= 5


async def test_a_snapshot_is_written_as_json(connection: Connection) -> None:
    await make(connection, "CREATE TABLE t (a INTEGER PRIMARY KEY); CREATE INDEX i ON t (a);")
    written = json.loads(json.dumps((await snapshot(connection)).to_dict()))
    assert written["engine"] == connection.engine
    assert list(written["tables"]["t"]["columns"]) == ["a"]
    assert written["indexes"]["i"]["parts"] == ["a"]


@on_sqlite
async def test_spelling_does_not_matter_on_sqlite(connection: Connection) -> None:
    plain = """CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL CHECK (length(email) > 3));
    CREATE INDEX i ON users (lower(email)) WHERE email IS NOT NULL;
    CREATE VIEW v AS SELECT id FROM users;
    CREATE TRIGGER g AFTER DELETE ON users BEGIN DELETE FROM users WHERE id = OLD.id; END;"""
    strange = """CREATE TABLE IF NOT EXISTS "users" ( -- a comment; with a semicolon
        [id] integer
          primary key, `email`   text NOT  NULL check(Length( "email" )>3) /* and another */ );
    create index if not exists "i" on [users](LOWER(email)  ) where "email" is not null;
    CREATE VIEW IF NOT EXISTS 'v' AS select   "id" FROM users;
    CREATE TRIGGER IF NOT EXISTS g after delete on "users"
      BEGIN delete from users WHERE id=old.id;END;"""
    assert differences(await made(connection, plain), await made(connection, strange)) == []


@on_sqlite
async def test_strings_keep_their_case_and_spaces(connection: Connection) -> None:
    one, other = [await made(connection, f"CREATE TABLE t (a TEXT DEFAULT '{text}')") for text in ("A  b", "a b")]
    assert [str(d) for d in differences(one, other)] == ["table t, column a: default 'a b', expected 'A  b'"]


@on_sqlite
async def test_a_rebuilt_table_equals_the_original(connection: Connection) -> None:
    await make(
        connection,
        """CREATE TABLE parents (id INTEGER PRIMARY KEY);
        CREATE TABLE children (
            id INTEGER PRIMARY KEY, up INTEGER REFERENCES parents (id) ON DELETE CASCADE, old INTEGER,
            CONSTRAINT positive CHECK (id > 0)
        );
        CREATE INDEX by_up ON children (up);""",
    )
    before = await snapshot(connection)
    await make(
        connection,
        """CREATE TABLE children_new (
            id INTEGER PRIMARY KEY, up INTEGER REFERENCES parents (id) ON DELETE CASCADE, old INTEGER,
            CONSTRAINT positive CHECK (id > 0)
        );
        INSERT INTO children_new SELECT * FROM children;
        DROP TABLE children;
        ALTER TABLE children_new RENAME TO children;
        CREATE INDEX by_up ON children (up);""",
    )
    assert differences(before, await snapshot(connection)) == []


@on_sqlite
async def test_what_no_pragma_tells_is_read_from_the_text(connection: Connection) -> None:
    await make(
        connection,
        """CREATE TABLE t (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            "check" TEXT COLLATE NOCASE NOT NULL ON CONFLICT IGNORE DEFAULT 'CHECK (x)' UNIQUE ON CONFLICT REPLACE,
            made TEXT GENERATED ALWAYS AS ("check" || ', (') STORED,
            seen TEXT AS (upper(made)),
            up INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED,
            CONSTRAINT "named one" CHECK (made <> ')'), CHECK (id IN (1, 2)) CHECK (up IS NULL)
        ) STRICT;
        CREATE TABLE pairs (a TEXT, b TEXT, PRIMARY KEY (b, a DESC)) WITHOUT ROWID;
        CREATE INDEX i ON t (made COLLATE RTRIM DESC, "check")""",
    )
    found = await snapshot(connection)
    table = found.tables["t"]
    assert table.options == ("AUTOINCREMENT", "STRICT", "check NOT NULL ON CONFLICT IGNORE")
    assert table.columns["check"].collation == "NOCASE"
    assert table.columns["check"].default == "'CHECK (x)'"
    assert table.columns["made"].generated == "STORED (check || ', (')"
    assert table.columns["seen"].generated == "VIRTUAL (upper(made))"
    assert table.uniques == (UniqueInfo(columns=("check",), detail="ON CONFLICT REPLACE"),)
    assert table.foreign_keys[0].to_columns == ("id",)
    assert table.foreign_keys[0].deferrable == "DEFERRABLE INITIALLY DEFERRED"
    assert table.checks == (
        "CHECK (id IN (1, 2))",
        "CHECK (up IS NULL)",
        "CONSTRAINT \"named one\" CHECK (made <> ')')",
    )
    assert found.tables["pairs"].options == ("WITHOUT ROWID",)
    assert found.tables["pairs"].primary_key == ("b", "a DESC")
    assert found.indexes["i"].parts == ("made COLLATE RTRIM DESC", "check COLLATE NOCASE")


@on_sqlite
async def test_a_virtual_table_is_one_object(connection: Connection) -> None:
    await make(
        connection,
        "CREATE VIRTUAL TABLE words USING fts5 (terms, detail = 'none'); CREATE TABLE words_data_too (a TEXT);"
        "CREATE TABLE docs_content (a TEXT); CREATE VIRTUAL TABLE docs USING FTS5 (a, content = 'docs_content');",
    )
    found = (await snapshot(connection)).tables
    assert list(found) == ["docs", "docs_content", "words", "words_data_too"]
    assert found["words"].virtual == "fts5(terms, detail = 'none')"


@on_sqlite
async def test_tables_of_the_service_around_d1_are_left_out(connection: Connection) -> None:
    await make(connection, "CREATE TABLE _cf_KV (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID; CREATE TABLE cf (a);")
    assert list((await snapshot(connection)).tables) == ["cf"]


class D1Reader:
    """A D1 database, past any client of ours."""

    engine: EngineName = "sqlite"
    address = "d1"

    def __init__(self, d1_engine: D1Engine) -> None:
        self._engine = d1_engine
        self._database = d1_engine.create_database()

    def run(self, *statements: str) -> None:
        self._engine.query(self._database, *statements)

    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        return [tuple(row) for row in self._engine.query(self._database, sql, params=list(params))]


@on_sqlite
async def test_d1_shows_what_sqlite_shows(connection: Connection, d1_engine: D1Engine) -> None:
    d1 = D1Reader(d1_engine)
    for migration in library_set("sqlite").migrations:
        d1.run(*(statement.sql for statement in migration.statements))
    d1.run(f"CREATE TABLE {quoted(ODD_NAMES[2])} (a TEXT COLLATE NOCASE UNIQUE)")
    await up(connection)
    await make(connection, f"CREATE TABLE {quoted(ODD_NAMES[2])} (a TEXT COLLATE NOCASE UNIQUE)")
    found = await snapshot(d1)
    assert found.counts()["tables"] == 20
    assert differences(await snapshot(connection), found, column_order=True) == []


@on_postgresql
async def test_types_functions_and_sequences_are_found(connection: Connection) -> None:
    await make(
        connection,
        """CREATE TYPE "OrderStatus" AS ENUM ('PENDING', 'DONE');
        ALTER TYPE "OrderStatus" ADD VALUE 'HALF' BEFORE 'DONE';
        CREATE DOMAIN positive AS integer NOT NULL DEFAULT 1 CHECK (VALUE > 0);
        CREATE TYPE pair AS (a integer, "B" positive);
        CREATE TYPE span AS RANGE (subtype = integer);
        CREATE FUNCTION twice(n integer, VARIADIC rest text[]) RETURNS integer LANGUAGE sql AS $$ SELECT $1 * 2 $$;
        CREATE PROCEDURE nothing() LANGUAGE sql AS 'SELECT 1';
        CREATE AGGREGATE total (integer) (sfunc = int4pl, stype = integer);
        CREATE SEQUENCE numbers START 5 INCREMENT 2;
        CREATE TABLE t (a serial, b integer GENERATED ALWAYS AS IDENTITY, s "OrderStatus");""",
    )
    found = await snapshot(connection)
    assert found.enums == {"OrderStatus": ("PENDING", "HALF", "DONE")}
    assert found.types == {
        "positive": "DOMAIN integer NOT NULL DEFAULT 1 CHECK (VALUE > 0)",
        "pair": '(a integer, "B" positive)',
        "span": "RANGE OF integer",
    }
    assert sorted(found.functions) == ["nothing()", "total(integer)", "twice(n integer, VARIADIC rest text[])"]
    assert found.functions["nothing()"].startswith("CREATE OR REPLACE PROCEDURE nothing()")
    assert list(found.sequences) == ["numbers"]
    columns = found.tables["t"].columns
    assert columns["a"].default == "nextval(its own sequence)"
    assert columns["b"].generated == "ALWAYS AS IDENTITY"
    assert columns["s"].type == '"OrderStatus"'


@on_postgresql
async def test_what_only_postgresql_has_is_found(connection: Connection) -> None:
    await make(
        connection,
        """CREATE TABLE days (id integer, day date NOT NULL) PARTITION BY RANGE (day);
        CREATE TABLE days_2026 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
        CREATE UNLOGGED TABLE t (
            id integer PRIMARY KEY, tags text[], "Name" text COLLATE "C",
            double integer GENERATED ALWAYS AS (id * 2) STORED,
            CONSTRAINT no_overlap EXCLUDE USING gist (int4range(id, double) WITH &&),
            CONSTRAINT one_name UNIQUE ("Name") DEFERRABLE
        );
        CREATE INDEX i_gin ON t USING gin (tags);
        CREATE INDEX i_rich ON t (lower("Name") text_pattern_ops DESC, id) INCLUDE (tags) WITH (fillfactor = 70);
        CREATE MATERIALIZED VIEW m AS SELECT id FROM t;
        CREATE INDEX i_m ON m (id);
        ALTER TABLE t ENABLE ROW LEVEL SECURITY;
        CREATE POLICY mine ON t USING (id > 0);
        CREATE RULE quiet AS ON DELETE TO t DO INSTEAD NOTHING;""",
    )
    found = await snapshot(connection)
    table = found.tables["t"]
    assert found.tables["days"].options == ("PARTITION BY RANGE (day)",)
    assert found.tables["days_2026"].options == ("PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",)
    assert table.options == (
        "CONSTRAINT no_overlap EXCLUDE USING gist (int4range(id, double) WITH &&)",
        "ROW LEVEL SECURITY",
        "UNLOGGED",
    )
    assert table.columns["Name"].collation == "C"
    assert table.columns["double"].generated == "STORED ((id * 2))"
    assert table.uniques == (UniqueInfo(columns=("Name",), name="one_name", detail="DEFERRABLE"),)
    assert found.indexes["i_gin"].method == "gin"
    assert found.indexes["i_rich"].parts == ('lower("Name") text_pattern_ops DESC', "id")
    assert found.indexes["i_rich"].include == ("tags",)
    assert found.indexes["i_rich"].options == "WITH (fillfactor = '70')"
    assert found.views["m"].materialized
    assert found.indexes["i_m"].table == "m"
    assert sorted(found.policies) == ["mine on t", "quiet on t"]


@on_postgresql
async def test_made_up_names_of_constraints_do_not_matter(connection: Connection) -> None:
    table = (
        "(id serial PRIMARY KEY, n integer UNIQUE CHECK (n > 0), up integer REFERENCES {0}, "
        "CONSTRAINT kept CHECK (n < 9))"
    )
    expected = await made(connection, f"CREATE TABLE t {table.format('t')};")
    await make(connection, f"CREATE TABLE t_new {table.format('t_new')}; ALTER TABLE t_new RENAME TO t;")
    found = await snapshot(connection)
    assert differences(expected, found) == []
    await make(connection, "ALTER TABLE t RENAME CONSTRAINT kept TO lost")
    assert [d.what for d in differences(expected, await snapshot(connection))] == ["missing", "unexpected"]


@on_postgresql
async def test_a_scratch_database_and_the_true_one_compare_equal(connection: Connection) -> None:
    script = """CREATE TYPE e AS ENUM ('a'); CREATE TABLE t (id serial PRIMARY KEY, e e DEFAULT 'a'::e, up integer);
    ALTER TABLE t ADD FOREIGN KEY (up) REFERENCES public.t;
    CREATE FUNCTION public.f(x t) RETURNS SETOF t LANGUAGE sql AS 'SELECT * FROM t';
    CREATE VIEW v AS SELECT t.id, f(t) FROM public.t;"""
    await make(connection, script)
    assert differences(await made(connection, script), await snapshot(connection)) == []


@on_postgresql
async def test_members_of_extensions_are_left_out(connection: Connection) -> None:
    available = await connection.fetch("SELECT name::text FROM pg_available_extensions WHERE name = 'citext'")
    if not available:
        pytest.skip("this PostgreSQL carries no extensions")
    await make(connection, "CREATE EXTENSION citext; CREATE TABLE t (a citext)")
    found = await snapshot(connection)
    assert found.tables["t"].columns["a"].type == "citext"
    assert not found.functions
    assert not found.types


@on_postgresql
async def test_invalid_indexes_and_unvalidated_constraints_are_named(connection: Connection) -> None:
    await make(connection, "CREATE TABLE t (a integer); INSERT INTO t VALUES (1), (1), (-1);")
    with pytest.raises(StatementError):
        await connection.run_alone("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)")
    await make(connection, "ALTER TABLE t ADD CONSTRAINT positive CHECK (a > 0) NOT VALID")
    found = await snapshot(connection)
    assert found.invalid_indexes == ("i",)
    assert not found.indexes["i"].valid
    assert found.tables["t"].checks == ("CONSTRAINT positive CHECK (a > 0)",)
    assert found.unvalidated == ("table t, constraint positive: CHECK (a > 0) NOT VALID",)
