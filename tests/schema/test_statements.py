"""Splitting scripts: what the engines' own shells would run as one statement stays one."""

from __future__ import annotations

import pickle
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dal.errors import SchemaError
from dal.schema import statements
from dal.schema.connection import EngineName
from dal.schema.statements import ScriptError, Statement, tokens, words_of


def split_statements(script: str, engine: EngineName) -> list[str]:
    return [statement.sql for statement in statements.split_statements(script, engine)]


def test_comments_before_and_after_statements_are_left_out() -> None:
    script = "-- purpose; of it\n/* a; b */ SELECT 1; -- end;\n;;\nSELECT 2 -- why; not\n + 1"
    assert split_statements(script, "sqlite") == ["SELECT 1", "SELECT 2 -- why; not\n + 1"]


@pytest.mark.parametrize(
    "text",
    ["'a;b'", "'it''s; fine'", '"odd;name"', "'-- no comment;'", "'/* nor; this'", "';' || ';'", "E'\\';'"],
)
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_semicolons_in_quotes_end_nothing(text: str, engine: EngineName) -> None:
    if engine == "sqlite" and text.startswith("E"):
        pytest.skip("SQLite has no E strings")
    assert split_statements(f"SELECT {text}; SELECT 2;", engine) == [f"SELECT {text}", "SELECT 2"]


@pytest.mark.parametrize("text", ["`odd;name`", "[odd;name]"])
def test_sqlites_other_quotes(text: str) -> None:
    assert split_statements(f"SELECT 1 AS {text}; SELECT 2", "sqlite") == [f"SELECT 1 AS {text}", "SELECT 2"]


TRIGGER = """CREATE TEMP TRIGGER counting AFTER INSERT ON t BEGIN
  UPDATE t SET n = CASE WHEN n > 1 THEN CASE n WHEN 2 THEN 3 ELSE 4 END ELSE n END;
  INSERT INTO log VALUES ('END;');
END"""


def test_a_trigger_with_case_is_one_statement() -> None:
    found = split_statements(f"CREATE TABLE t (n); CREATE TABLE log (x);\n{TRIGGER};\nSELECT 1;", "sqlite")
    assert found[2:] == [TRIGGER, "SELECT 1"]
    connection = sqlite3.connect(":memory:")
    for statement in found:
        connection.execute(statement)
    connection.close()


def test_begin_and_end_outside_bodies_are_words() -> None:
    script = "SELECT CASE WHEN 1 THEN 2 END; CREATE TABLE begin_end (begin TEXT, end_ TEXT); SELECT 3"
    assert len(split_statements(script, "sqlite")) == 3


@pytest.mark.parametrize(
    "body",
    [
        "AS $$ BEGIN; RETURN; END; $$ LANGUAGE plpgsql",
        "AS $body$ SELECT '$$;'; $body$ LANGUAGE sql",
        "LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
    ],
)
def test_a_function_is_one_statement(body: str) -> None:
    function = f"CREATE OR REPLACE FUNCTION f() RETURNS int {body}"
    assert split_statements(f"{function}; SELECT 1", "postgresql") == [function, "SELECT 1"]


def test_block_comments_nest_on_postgresql_only() -> None:
    assert split_statements("/* a /* b */ ; */ SELECT 1", "postgresql") == ["SELECT 1"]
    assert split_statements("/* a /* b */ SELECT 1; SELECT 2", "sqlite") == ["SELECT 1", "SELECT 2"]


@pytest.mark.parametrize(
    "script", ["SELECT 'a", 'SELECT "a', "/* a", "CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1;"]
)
def test_a_script_that_ends_too_early_is_refused(script: str) -> None:
    with pytest.raises(SchemaError, match="ends inside"):
        split_statements(script, "sqlite")


def refusal(script: str, engine: EngineName) -> ScriptError:
    with pytest.raises(ScriptError) as caught:
        statements.split_statements(script, engine)
    return caught.value


def test_every_statement_knows_its_line() -> None:
    script = "-- head\n\nSELECT 1;SELECT 2;\n/* a\nb */ SELECT\n  '\n'; SELECT 4"
    found = statements.split_statements(script, "sqlite")
    assert [s.line for s in found] == [3, 3, 5, 7]
    assert found[2].line_of(found[2].sql.index("'")) == 6


def test_a_statements_beginning_is_one_short_line() -> None:
    assert Statement("SELECT\n  1").beginning() == "SELECT 1"
    assert Statement("SELECT " + "x" * 500).beginning() == f"SELECT {'x' * 193}…"
    assert len(Statement(" " * 900 + "x").beginning()) <= 201


@pytest.mark.parametrize("column", ["end", "begin", "case"])
def test_a_triggers_column_may_have_a_keywords_name(column: str) -> None:
    trigger = f"CREATE TRIGGER t AFTER UPDATE OF {column} ON x BEGIN UPDATE y SET {column} = 1; END"
    assert split_statements(f"{trigger}; SELECT 1;", "sqlite") == [trigger, "SELECT 1"]
    connection = sqlite3.connect(":memory:")
    for statement in (f'CREATE TABLE x ("{column}")', f'CREATE TABLE y ("{column}")'):
        connection.execute(statement)
    if column != "case":  # which SQLite itself takes only in quotes
        connection.execute(trigger)
    connection.close()


PIECES = [
    "CREATE TRIGGER", "CREATE TEMP", "; END ;", "CREATE", "TEMP", "TRIGGER", "BEGIN", "END", "CASE", "end", ";", ";",
    "x", "'a;'", '"b;"', "`c;`", "[d;]", "-- e;\n", "/* f; */", "(", ")", "1", "\n", "'it''s'", "TABLE", "é",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join))
def test_sqlite_itself_would_end_the_statements_there(script: str) -> None:
    """`sqlite3_complete` is what SQLite's shell asks after each line."""
    try:
        found = statements.split_statements(script, "sqlite")
    except ScriptError:
        assert not sqlite3.complete_statement(script)
        return
    for statement in found[:-1]:
        assert sqlite3.complete_statement(f"{statement.sql};")
        places = [place for place, character in enumerate(statement.sql) if character == ";"]
        assert not any(sqlite3.complete_statement(statement.sql[: place + 1]) for place in places if place)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); INSERT INTO b VALUES (2))",
        "DO $x$ BEGIN PERFORM 1; END $x$",
        "SELECT E'it\\'s; \\\\', U&'\\0041;', U&\"x;\"",
        "SELECT a[1], b$1$, $1",
        "CREATE FUNCTION f() RETURNS text AS $Ünï$ ; $$ ; $Ünï$ LANGUAGE sql",
        "CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (CASE WHEN true THEN (1) END); END",
        "SELECT 'back\\'",
    ],
)
def test_what_psql_would_send_as_one(statement: str) -> None:
    assert split_statements(f"{statement};SELECT 2;", "postgresql") == [statement, "SELECT 2"]


def test_begin_begins_a_body_in_functions_only() -> None:
    assert split_statements("BEGIN; SELECT 1; END; CREATE TABLE t (x int); SELECT 2", "postgresql")[1] == "SELECT 1"
    view = "CREATE VIEW v AS SELECT 1 AS begin"
    assert split_statements(f"{view}; SELECT 2", "postgresql") == [view, "SELECT 2"]


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("SELECT 1;\nSELECT E'a\\'", 2),
        ("SELECT 1;\n\nSELECT $a$ b;", 3),
        ("SELECT 1;\nSELECT (1;\nSELECT 2", 2),
        ("SELECT 1; /* /* */", 1),
        ("CREATE FUNCTION f() BEGIN ATOMIC SELECT 1;", 1),
    ],
)
def test_an_open_end_is_told_with_its_line(script: str, line: int) -> None:
    assert refusal(script, "postgresql").line == line


def test_what_only_psql_reads_is_refused_where_it_stands() -> None:
    copy = refusal("SELECT 1;\ncopy t (a) from stdin with (format text);\nit's\t1\n\\.\n", "postgresql")
    assert (copy.line, "INSERT" in copy.message) == (2, True)
    command = refusal("SELECT 1;\n\\connect other\n", "postgresql")
    assert (command.line, "psql" in command.message) == (2, True)
    assert len(split_statements("COPY t TO '/tmp/x'; COPY t FROM '/tmp/x' (FORMAT csv)", "postgresql")) == 2


def test_a_refusal_can_be_sent_to_another_process() -> None:
    again = pickle.loads(pickle.dumps(refusal("SELECT 1;\n'", "sqlite")))  # noqa: S301
    assert (type(again), again.line) == (ScriptError, 2)


def test_tokens_tell_words_from_names_strings_and_numbers() -> None:
    found = [(t.kind, t.text) for t in tokens("""SELECT "a", 'b', c1, 1.5e-3, 0x1F -- d\n""", "sqlite")]
    assert found == [
        ("word", "SELECT"), ("name", '"a"'), ("sign", ","), ("string", "'b'"), ("sign", ","), ("word", "c1"),
        ("sign", ","), ("number", "1.5e-3"), ("sign", ","), ("number", "0x1F"),
    ]  # fmt: skip
    assert [t.kind for t in tokens("E'x' $$y$$", "postgresql")] == ["string", "string"]
    assert words_of("create  /* x */ Table t", "sqlite", 2) == ["CREATE", "TABLE"]
    assert words_of('"create" table', "sqlite", 2) == []
