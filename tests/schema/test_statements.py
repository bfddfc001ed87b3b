"""Splitting scripts: what the engines' own shells would run as one statement stays one."""

from __future__ import annotations

import sqlite3

import pytest

from dal.errors import SchemaError
from dal.schema import statements
from dal.schema.connection import EngineName


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
