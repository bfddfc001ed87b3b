"""The engine itself: what the tests of the D1 backend rely on."""

from __future__ import annotations

import httpx
import pytest

from tests.engines.d1 import D1Engine


def test_a_batch_is_atomic_and_a_refusal_names_the_constraint(d1_engine: D1Engine) -> None:
    database = d1_engine.create_database()
    d1_engine.query(database, "CREATE TABLE t (a INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with pytest.raises(RuntimeError, match=r"UNIQUE constraint failed: t\.a"):
        d1_engine.query(database, "INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)")
    assert d1_engine.query(database, "SELECT a FROM t") == [[1]]


def test_json_integers_bind_as_real_and_come_back_rounded(d1_engine: D1Engine) -> None:
    """What the backend works around; should the engine change, it may stop."""
    database = d1_engine.create_database()
    assert d1_engine.query(database, "SELECT typeof(?1)", params=[7]) == [["real"]]
    assert d1_engine.query(database, "SELECT 9007199254740993") == [[9007199254740992]]


@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize(
    "fault", [{"drop": True}, {"status": 500}, {"status": 502, "body": "<html>bad gateway</html>"}]
)
def test_a_fault_comes_before_or_after_the_commit(
    d1_engine: D1Engine, when: str, kept: int, fault: dict[str, object]
) -> None:
    database = d1_engine.create_database()
    d1_engine.query(database, "CREATE TABLE t (a)")
    d1_engine.faults(database, {"when": when, "match": "INSERT", **fault})
    with pytest.raises((RuntimeError, httpx.TransportError, ValueError)):
        d1_engine.query(database, "INSERT INTO t VALUES (1)")
    assert d1_engine.query(database, "SELECT count(*) FROM t") == [[kept]]


def test_what_was_committed_survives_a_kill(own_d1: D1Engine) -> None:
    database = own_d1.create_database()
    own_d1.query(database, "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    own_d1.kill()
    own_d1.start()
    assert own_d1.query(database, "SELECT a FROM t") == [[1]]


def test_a_database_is_listed_until_it_is_dropped(d1_engine: D1Engine) -> None:
    database = d1_engine.create_database("short-lived")
    assert "short-lived" in d1_engine.names()
    d1_engine.drop_database(database)
    assert "short-lived" not in d1_engine.names()
    with pytest.raises(RuntimeError, match="7404"):
        d1_engine.query(database, "SELECT 1")


def test_the_emptied_database_is_one_and_has_no_row_from_before(own_d1: D1Engine) -> None:
    schema = [
        "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
        "CREATE TABLE children (id INTEGER REFERENCES parents (id))",
    ]
    database = own_d1.emptied_database(schema)
    own_d1.query(database, "INSERT INTO parents VALUES (7)", "INSERT INTO children VALUES (7)")
    assert own_d1.emptied_database(schema) == database
    assert own_d1.query(database, "SELECT id FROM parents UNION ALL SELECT id FROM children") == []
