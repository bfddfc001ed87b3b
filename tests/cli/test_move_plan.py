"""`dal move plan`: what it says, its exit codes, and that it makes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dal.testing.rows import row_id
from tests.cli.conftest import Command, document, run_sql
from tests.cli.move_stores import ROWS, Stores, counts, gates, new_user
from tests.move.pairs import COUNTS
from tests.move.replicas import run_sqlite


def test_a_plan_counts_measures_and_makes_nothing(run: Command, stores: Stores, tmp_path: Path) -> None:
    found = document(run("move", "plan", *stores.options, "--json"))
    assert found["ok"]
    assert (found["rows"], found["total_rows"], found["read"]) == (COUNTS, ROWS, ROWS)
    assert found["source_speed"]["rows_s"] > 0
    assert found["seconds"] > 0
    assert any("dal move start" in note for note in found["notes"])
    assert not (tmp_path / "target.db").exists()
    assert gates(stores.source) == {}
    shown = run("move", "plan", *stores.options)
    assert shown.exit_code == 0
    assert f"{ROWS} rows" in shown.stdout
    assert f"dal move start --from {stores.source} --to {stores.target}" in shown.stderr


def test_obstacles_are_listed_and_end_with_1(run: Command, stores: Stores, tmp_path: Path) -> None:
    run_sqlite(tmp_path / "source.db", "UPDATE messages SET content = 'a' || char(0)")
    found = document(run("move", "plan", *stores.options, "--json"), code=1)
    (obstacle,) = found["obstacles"]
    assert (obstacle["kind"], obstacle["table"], obstacle["rows"]) == ("value", "messages", COUNTS["messages"])
    shown = run("move", "plan", *stores.options)
    assert shown.exit_code == 1
    assert "messages.content: text with U+0000" in shown.stdout


def test_start_refuses_what_a_plan_finds_unless_it_is_allowed(run: Command, stores: Stores, tmp_path: Path) -> None:
    run_sqlite(tmp_path / "source.db", "UPDATE messages SET content = 'a' || char(0)")
    refused = run("move", "start", *stores.options, "--exit-when-verified")
    assert refused.exit_code == 1
    assert "messages.content: text with U+0000" in refused.stderr
    assert "--allow-obstacles" in refused.stderr
    assert gates(stores.source) == {}
    run_sqlite(tmp_path / "source.db", "CREATE TABLE other (x)", "DELETE FROM messages")
    run_sqlite(tmp_path / "source.db", "UPDATE messages SET token_count = 'many'")
    run_sqlite(tmp_path / "source.db", "UPDATE user_memory SET value = '{'")
    refused = run("move", "start", *stores.options, "--exit-when-verified", "--allow-obstacles")
    assert refused.exit_code == 1
    assert "user_memory: rows that cannot be read" in refused.stderr
    assert gates(stores.source) == {}


def test_only_some_units_take_what_they_refer_to_along(run: Command, stores: Stores) -> None:
    found = document(run("move", "plan", *stores.options, "--only", "memory", "--json"))
    assert found["units"] == ["memory", "users"]
    assert set(found["rows"]) == {"users", "user_memory"}


def test_a_postgresql_target_without_a_schema_is_told_how_to_get_one(
    run: Command, stores: Stores, postgres_server_url: str
) -> None:
    to = ("--from", stores.source, "--to", postgres_server_url)
    found = document(run("move", "plan", *to, "--json"), code=1)
    (obstacle,) = found["obstacles"]
    assert obstacle["kind"] == "schema"
    assert "dal schema up --url" in obstacle["text"]
    refused = run("move", "start", *to)
    assert refused.exit_code == 1
    assert "dal schema up --url" in refused.stderr


def test_a_target_that_does_not_answer_is_in_the_way_and_its_password_is_not_shown(
    run: Command, stores: Stores
) -> None:
    shown = run("move", "plan", "--from", stores.source, "--to", "postgresql://me:hunter2@127.0.0.1:1/db")
    assert shown.exit_code == 1
    assert "unreachable" in shown.stdout
    assert "hunter2" not in shown.output + shown.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--to", "sqlite:source.db"), "names the store that is to be moved"),
        ((), "--to: not given"),
        (("--to", "sqlite:x.db", "--only", "memory,chatts"), "there is no chatts"),
        (("--to", "mysql://x"), "unknown scheme"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(
    run: Command, stores: Stores, arguments: tuple[str, ...], says: str
) -> None:
    for command in ("plan", "start"):
        shown = run("move", command, "--from", stores.source, *arguments)
        assert shown.exit_code == 2
        assert says in shown.stderr
        assert shown.stderr.count("\n") == 1


def test_both_stores_may_be_named_by_the_environment(
    run: Command, stores: Stores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATA_STORAGE_TYPE", "sqlite")
    monkeypatch.setenv("SQLITE_PATH", str(tmp_path / "source.db"))
    monkeypatch.setenv("MIGRATION_TARGET_URL", "sqlite:elsewhere.db")
    shown = run("move", "plan")
    assert shown.exit_code == 0
    assert shown.stderr.splitlines()[-1].endswith("Next: dal move start")


def test_foreign_triggers_are_in_the_way(run: Command, stores: Stores) -> None:
    run_sql(stores.source, "CREATE TRIGGER theirs AFTER INSERT ON users BEGIN SELECT 1; END")
    found = document(run("move", "plan", *stores.options, "--json"), code=1)
    assert "theirs" in found["obstacles"][0]["text"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks and comparisons follow one another without a pause."""
    monkeypatch.setattr("dal.cli.move.start._SHOW_EVERY_S", 0.02)
    monkeypatch.setattr("dal.move.mover.MOVE_VERIFY_AGAIN_S", 0.0)


@pytest.mark.usefixtures("impatient")
def test_rows_that_a_row_of_the_target_keeps_out_end_start_and_are_named(
    run: Command, stores: Stores, tmp_path: Path
) -> None:
    run("schema", "up", "--url", stores.target)
    run_sqlite(tmp_path / "source.db", f"UPDATE users SET clerk_id = 'taken' WHERE id = '{row_id(1)}'")
    other = new_user(stores.target, "other")
    run_sqlite(tmp_path / "target.db", "UPDATE users SET clerk_id = 'taken'")
    options = (*stores.options, "--exit-when-verified")
    assert "--allow-obstacles" in run("move", "start", *options).stderr
    ended = run("move", "start", *options, "--allow-obstacles")
    assert ended.exit_code == 1
    why = f"users['{row_id(1)}'] behind users['{other}']"
    assert "not verified: users: 1 rows cannot be copied, another row holds their unique key" in ended.stderr
    assert why in ended.stderr
    assert "dal move abort" in ended.stderr
    assert why in run("move", "status", *stores.options).stdout.replace("\n", "")
    assert run("move", "repair", *stores.options, "--delete-extra", "--yes").exit_code == 0
    assert run("move", "start", *options).exit_code == 0
    assert counts(stores.target) == counts(stores.source)


@pytest.mark.usefixtures("impatient")
def test_rows_that_only_the_target_has_end_start_and_are_named(run: Command, stores: Stores, tmp_path: Path) -> None:
    run("schema", "up", "--url", stores.target)
    new_user(stores.target, "extra")
    ended = run("move", "start", *stores.options, "--exit-when-verified", "--allow-obstacles")
    assert ended.exit_code == 1
    assert re.search(r"not verified: users: 1 rows differ: users\['\S+'\] \(extra in the target\)", ended.stderr)


def test_help_flows_with_the_width_of_the_terminal(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)  # what TERMINAL_WIDTH says to a process that starts
    shown = run("move", "start", "--help").stdout
    assert "the same command goes on where it was. Several may run at once; one of them works." in shown
