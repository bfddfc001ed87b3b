"""The pattern dashboard: seed data that can be sown twice, and only where it is wanted."""

from __future__ import annotations

import pytest

from dal.factory import schema_connection
from dal.schema import plan, read_set, up
from dal.schema.checking.verify import verify
from tests.schema_sets.conftest import MakeUrl
from tests.schema_sets.sets import PATTERNS, ledger, rows

SEED = "0005_seed_data.sql"
TABLES = ("teams", "users", "patterns", "repositories", "violations", "approvals", "audit_log")


def _content(url: str) -> dict[str, list[tuple[object, ...]]]:
    return {table: rows(url, f"SELECT * FROM {table} ORDER BY id") for table in TABLES}


@pytest.fixture(params=["sqlite", "d1"])
def url(request: pytest.FixtureRequest, new_url: MakeUrl) -> str:
    """The address of an empty database."""
    return new_url(PATTERNS, on=request.param)


async def test_the_seed_gives_the_same_rows_when_it_is_run_twice(url: str) -> None:
    migrations = read_set(PATTERNS.directory, "sqlite")
    async with schema_connection(url, create=True) as connection:
        await up(connection, migrations, seed=True)
        once = _content(url)
        assert {table: len(found) for table, found in once.items() if found} == PATTERNS.expected["rows"]
        await connection.run([(statement.sql, ()) for statement in migrations.migrations[-1].statements])
        assert _content(url) == once
        assert (await verify(connection, migrations)).ok


async def test_the_seed_is_left_out_where_nobody_asks_for_it(url: str) -> None:
    migrations = read_set(PATTERNS.directory, "sqlite")
    async with schema_connection(url, create=True) as connection:
        found = await plan(connection, migrations)
        assert [name for name, _ in found.left_out] == [SEED]
        await up(connection, migrations)
        assert ledger(url) == PATTERNS.files[:-1]
        assert all(not found for found in _content(url).values())
        assert (await verify(connection, migrations)).ok, "a database without it is whole"
        assert [m.name for m in await up(connection, migrations, seed=True)] == [SEED], "and can have it later"


async def test_seed_data_leaves_what_people_have_changed_alone(url: str) -> None:
    migrations = read_set(PATTERNS.directory, "sqlite")
    async with schema_connection(url, create=True) as connection:
        await up(connection, migrations, to="0004_triggers.sql")
        team = "00000000-0000-4000-8000-000000000001"
        await connection.run([("INSERT INTO teams (id, name, slug) VALUES (?, 'Ours', 'default-team')", (team,))])
        await up(connection, migrations, seed=True)
    assert rows(url, "SELECT name FROM teams") == [("Ours",)]
    assert rows(url, "SELECT count(*) FROM users")[0] == (1,)


@pytest.mark.parametrize("table", ["patterns", "repositories", "violations", "teams"])
async def test_a_trigger_says_when_a_row_was_changed(table: str, url: str) -> None:
    """The bodies of the triggers have come through whole: they do what they are for."""
    async with schema_connection(url, create=True) as connection:
        await up(connection, read_set(PATTERNS.directory, "sqlite"), seed=True)
        violation = (
            "INSERT INTO violations (id, pattern_id, repository_id, file_path, severity) "
            "SELECT 'v', p.id, r.id, 'a.py', 'Low' FROM patterns AS p, repositories AS r LIMIT 1"
        )
        await connection.run([(violation, ()), (f"UPDATE {table} SET updated_at = '2000-01-01'", ())])
        change = "status = 'resolved'" if table == "violations" else "name = name || '!'"
        await connection.run([(f"UPDATE {table} SET {change}", ())])
    assert rows(url, f"SELECT count(*) FROM {table} WHERE updated_at > '2020-01-01'")[0][0] > 0
    assert rows(url, f"SELECT count(*) FROM {table} WHERE updated_at = '2000-01-01'") == [(0,)]


async def test_the_views_answer_what_the_dashboard_asks(url: str) -> None:
    async with schema_connection(url, create=True) as connection:
        await up(connection, read_set(PATTERNS.directory, "sqlite"), seed=True)
        await connection.run(
            [
                (
                    "INSERT INTO violations (id, pattern_id, repository_id, file_path, severity, status) "
                    "SELECT 'v' || n.column1, p.id, r.id, 'a.py', 'Critical', n.column2 FROM patterns AS p, "
                    "repositories AS r, (VALUES (1, 'open'), (2, 'resolved')) AS n "
                    "WHERE p.name = 'Trailing Whitespace' AND r.name = 'API Gateway'",
                    (),
                ),
                ("INSERT INTO approvals (id, violation_id, due_at) VALUES ('a', 'v1', '2000-01-01 00:00:00')", ()),
            ]
        )
    metrics = (
        "SELECT repository_name, total_violations, open_violations, resolved_violations, critical_violations, "
        "compliance_percentage FROM repository_compliance_metrics ORDER BY repository_name"
    )
    assert rows(url, metrics) == [
        ("API Gateway", 2, 1, 1, 1, 50.0),
        ("Authentication Service", 0, 0, 0, 0, 100.0),
        ("Dashboard UI", 0, 0, 0, 0, 100.0),
    ]
    assert rows(url, "SELECT sla_status FROM pending_approvals_queue") == [("overdue",)]
    assert rows(url, "SELECT DISTINCT pattern_name FROM violations_with_details") == [("Trailing Whitespace",)]
