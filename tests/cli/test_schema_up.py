"""`dal schema up`, `down` and `baseline`, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from dal.factory import schema_connection
from dal.schema.lock import held
from tests.cli.conftest import TIMEOUT_S, Command, Document, command_line, document, run_sql
from tests.cli.schema_files import AUTHORS, BOOKS, FILES, SEED, broken, write_files

DONE_KEYS = {"name", "duration_ms", "statements"}


def names(found: object) -> list[str]:
    assert isinstance(found, list)
    return [one["name"] for one in found]


def test_up_applies_each_file_once_and_says_so(run: Command, files: str, database: str) -> None:
    first = run("schema", "up", "--dir", files, "--url", database)
    assert first.exit_code == 0, first.output
    assert AUTHORS in first.stdout
    assert BOOKS in first.stdout
    lines = first.stderr.splitlines()
    assert sum(line.startswith(f"dal: applied {AUTHORS} in ") and line.endswith(" ms") for line in lines) == 1
    assert any(line.startswith("dal: validate: ") for line in lines)
    assert any(line.startswith("dal: verify: ") for line in lines)
    second = run("schema", "up", "--dir", files, "--url", database)
    assert (second.exit_code, second.stdout) == (0, "")
    assert "up to date" in second.stderr


def test_up_as_json(run: Command, files: str, database: str) -> None:
    found = document(run("schema", "up", "--dir", files, "--url", database, "--json"))
    assert set(found) == {
        *("ok", "address", "environment", "set", "applied", "pending", "left_out", "phases", "findings", "backup"),
        *("problem", "duration_ms"),
    }
    assert (found["ok"], found["set"], found["problem"], found["pending"]) == (True, "migrations", None, [])
    assert names(found["applied"]) == [AUTHORS, BOOKS]
    assert all(set(one) == DONE_KEYS for one in found["applied"])
    assert found["left_out"] == [{"name": SEED, "why": "it is for seed only"}]
    assert "apply" in names(found["phases"])


def test_up_to_a_file_leaves_the_rest_for_later(run: Command, files: str, database: str) -> None:
    assert names(
        document(run("schema", "up", "--dir", files, "--url", database, "--to", AUTHORS, "--json"))["applied"]
    ) == [AUTHORS]
    status = document(run("schema", "status", "--dir", files, "--url", database, "--json"), code=1)
    assert (names(status["applied"]), status["pending"]) == ([AUTHORS], [BOOKS])


def test_a_file_that_fails_is_named_by_line_and_what_stays_is_said(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    broken(Path(files))
    result = run("schema", "up", "--dir", files, "--url", database)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "0004_reviews.sql:3" in result.stderr
    failed, advice = result.stderr.splitlines()[-2:]
    assert failed == "dal: validate failed: 1 error, see above; no migration was applied"
    assert advice == "dal: mend the files and run it again"
    found = document(run("schema", "up", "--dir", files, "--url", database, "--json"), code=1)
    assert (found["ok"], found["applied"], found["pending"]) == (False, [], ["0004_reviews.sql"])
    assert "0004_reviews.sql" in found["problem"]


def test_a_file_that_fails_on_rows_keeps_those_before_it(run: Command, files: str, database: str) -> None:
    """A scratch database has no rows, so nothing finds it before."""
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    run_sql(database, "INSERT INTO authors (id, name) VALUES (1, 'Ada'), (2, 'Ada')")
    write_files(
        Path(files),
        {
            "0004_tags.sql": "CREATE TABLE tags (id BIGINT PRIMARY KEY);\n",
            "rollback/0004_tags.sql": "DROP TABLE tags;\n",
            # What squawk says of it is not what is tested here.
            "0005_names.sql": "-- dal:allow create-index\nSELECT 1;\nCREATE UNIQUE INDEX idx_names\n"
            "    ON authors (name);\n",
            "rollback/0005_names.sql": "DROP INDEX idx_names;\n",
        },
    )
    result = run("schema", "up", "--dir", files, "--url", database)
    assert result.exit_code == 1
    failed, advice = result.stderr.splitlines()[-2:]
    assert "apply failed: " in failed
    assert "0005_names.sql:3 " in failed
    assert failed.endswith("; 0004_tags.sql applied and stayed")
    assert advice == "dal: mend the file and run it again: it goes on there"
    found = document(run("schema", "status", "--dir", files, "--url", database, "--json"), code=1)
    assert found["pending"] == ["0005_names.sql"]


@pytest.mark.parametrize("places", [1, 2])
def test_a_finding_can_be_gone_past(run: Command, files: str, database: str, places: int) -> None:
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    for number in range(4, 4 + places):
        name = f"{number:04}_clean.sql"
        write_files(Path(files), {name: "DELETE FROM books;\n", f"rollback/{name}": "SELECT 1;\n"})
    refused = run("schema", "up", "--dir", files, "--url", database)
    assert refused.exit_code == 1
    assert f"lint failed: {places} error{'s' * (places > 1)}, see above; no migration was applied" in refused.stderr
    assert "--allow RULE" in refused.stderr
    (rule,) = {line.split(": ")[3] for line in refused.stderr.splitlines() if ": error: " in line}
    assert run("schema", "up", "--dir", files, "--url", database, "--allow", rule).exit_code == 0


def test_up_says_whom_it_waits_for(files: str, database: str, run: Command) -> None:
    options = ["--dir", files, "--url", database]
    assert run("schema", "up", *options, "--to", AUTHORS).exit_code == 0

    async def work() -> None:
        async with schema_connection(database) as connection:
            async with held(connection, wait_s=TIMEOUT_S, on_wait=lambda _: None):
                process, errors = await up_that_waits(options)
            rest = (await errors.read()).decode()
            assert f"applied {BOOKS} in " in rest
            assert await process.wait() == 0

    asyncio.run(work())


def test_ctrl_c_while_it_waits_leaves_everything_as_it_is(files: str, database: str, run: Command) -> None:
    options = ["--dir", files, "--url", database]
    assert run("schema", "up", *options, "--to", AUTHORS).exit_code == 0

    async def work() -> None:
        async with schema_connection(database) as connection:
            async with held(connection, wait_s=TIMEOUT_S, on_wait=lambda _: None):
                process, errors = await up_that_waits(options)
                process.send_signal(signal.SIGINT)
                rest = await errors.read()
                assert await process.wait() == 130
            assert rest.endswith(b"dal: interrupted\n")
            assert b"Traceback" not in rest

    asyncio.run(work())
    found = document(run("schema", "status", *options, "--json"), code=1)
    assert found["pending"] == [BOOKS]
    assert run("schema", "up", *options).exit_code == 0


async def up_that_waits(options: list[str]) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
    """`dal schema up` as a process, once it has said that it waits, and its standard error from there on."""
    command = command_line("schema", "up", *options)
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    while b"waiting for the migration lock: process " not in (line := await process.stderr.readline()):
        assert line, "it ended without waiting"
    return process, process.stderr


def test_an_edited_file_is_refused_until_it_is_allowed(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database, "--to", AUTHORS).exit_code == 0
    (Path(files) / AUTHORS).write_text(FILES[AUTHORS] + "-- edited\n")
    refused = run("schema", "up", "--dir", files, "--url", database)
    assert refused.exit_code == 1
    assert f"dal: migrations/{AUTHORS}: error: edited-migration: " in refused.stderr
    assert "plan failed: 1 error, see above; no migration was applied" in refused.stderr
    allowed = run("schema", "up", "--dir", files, "--url", database, "--allow", "edited-migration")
    assert allowed.exit_code == 0, allowed.output


def test_reports_and_a_backup_are_made_when_asked(run: Command, files: str, database: str, tmp_path: Path) -> None:
    found = document(
        run("schema", "up", "--dir", files, "--url", database, "--report", str(tmp_path / "out"), "--backup", "--json")
    )
    assert Path(str(found["backup"])).is_file()
    assert Path(str(found["backup"])).parent.resolve() == (tmp_path / "backups").resolve()
    made = {path.name for path in (tmp_path / "out").iterdir()}
    for report in ("execution-log", "validation-report", "baseline-timings"):
        assert {f"{report}.txt", f"{report}.json"} <= made


def test_down_takes_back_the_newest_first(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    one = run("schema", "down", "--dir", files, "--url", database, "--yes")
    assert one.exit_code == 0, one.output
    assert BOOKS in one.stdout
    assert AUTHORS not in one.stdout
    assert any(line.startswith(f"dal: took back rollback/{BOOKS} in ") for line in one.stderr.splitlines())
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    found = document(run("schema", "down", "--dir", files, "--url", database, "--yes", "--steps", "9", "--json"))
    assert set(found) == {"address", "environment", "set", "taken_back", "backup"}
    assert names(found["taken_back"]) == [BOOKS, AUTHORS]
    nothing = run("schema", "down", "--dir", files, "--url", database, "--yes")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "nothing to take back" in nothing.stderr


def test_down_to_a_file_keeps_that_file(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    assert run("schema", "down", "--dir", files, "--url", database, "--to", AUTHORS, "--yes").exit_code == 0
    status = document(run("schema", "status", "--dir", files, "--url", database, "--json"), code=1)
    assert (names(status["applied"]), status["pending"]) == ([AUTHORS], [BOOKS])
    result = run("schema", "down", "--dir", files, "--url", database, "--to", BOOKS, "--yes")
    assert result.exit_code == 2
    assert "is not applied" in result.stderr


def test_down_asks_nobody_off_a_terminal(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    assert run("schema", "down", "--dir", files, "--url", database, "--steps", "2").exit_code == 0
    assert run("schema", "status", "--dir", files, "--url", database).exit_code == 1


def test_down_without_a_way_back_fails_and_touches_nothing(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    (Path(files) / "rollback" / BOOKS).unlink()
    result = run("schema", "down", "--dir", files, "--url", database, "--yes")
    assert result.exit_code == 1
    assert f"rollback/{BOOKS}" in result.stderr
    assert run("schema", "status", "--dir", files, "--url", database).exit_code == 0


def test_baseline_enters_files_without_running_them(run: Command, files: str, database: str) -> None:
    assert run("schema", "up", "--dir", files, "--url", database, "--to", AUTHORS).exit_code == 0
    result = run("schema", "baseline", "--dir", files, "--url", database, "--to", BOOKS)
    assert (result.exit_code, result.stdout) == (0, f"{BOOKS}\n")
    assert "verify" in result.stderr
    assert run("schema", "status", "--dir", files, "--url", database).exit_code == 0
    missing = run("schema", "verify", "--dir", files, "--url", database)
    assert missing.exit_code == 1
    assert "books" in missing.stdout
    again = document(run("schema", "baseline", "--dir", files, "--url", database, "--to", BOOKS, "--json"))
    assert set(again) == {"address", "environment", "set", "entered"}
    assert again["entered"] == []


@pytest.mark.parametrize("command", [["baseline"], ["up"], ["plan"], ["down", "--yes"]], ids=" ".join)
def test_a_file_that_is_not_there_is_wrong_usage(run: Command, files: str, database: str, command: list[str]) -> None:
    assert run("schema", "up", "--dir", files, "--url", database).exit_code == 0
    result = run("schema", *command, "--dir", files, "--url", database, "--to", "0009_typo.sql")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "0009_typo.sql" in result.stderr
    assert BOOKS in result.stderr


def test_the_librarys_own_schema_goes_up_and_down(run: Command, database: str) -> None:
    first: Document = document(run("schema", "up", "--url", database, "--json"))
    assert first["set"] == "dal"
    assert names(first["applied"]) == ["0001_core.sql", "0002_search.sql", "0003_files.sql", "0004_file_names.sql"]
    assert run("chats", "list", "--url", database).exit_code == 0
    assert run("schema", "verify", "--url", database).exit_code == 0
    assert run("schema", "drift", "--url", database).exit_code == 0
    assert run("schema", "down", "--url", database, "--yes").exit_code == 0
    status = json.loads(run("schema", "status", "--url", database, "--json").stdout)
    lacking = ["0004_file_names.sql"]
    assert (status["usable"], status["pending"], status["required"]) == (False, lacking, lacking)
    refused = run("chats", "list", "--url", database)
    assert refused.exit_code == 1
    assert "is at 0003_files and lacks 0004_file_names.sql; run `dal schema up" in refused.stderr
    assert run("schema", "up", "--url", database).exit_code == 0
    assert run("chats", "list", "--url", database).exit_code == 0
