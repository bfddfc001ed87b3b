"""The reports of a deployment: the same facts for people and for programs, whole, and without secrets."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dal.schema.deploying.deploy import deploy
from dal.schema.deploying.deployment import Deployment
from dal.schema.deploying.report import write_reports
from dal.schema.files import read_set
from tests.schema.opened import execute, opened, rows

REPORTS = ["baseline-timings", "execution-log", "validation-report"]
SETUP = {
    "0001_one.sql": "CREATE TABLE one (id INTEGER PRIMARY KEY, name TEXT);\n",
    "rollback/0001_one.sql": "-- dal:allow drop-table\nDROP TABLE one;\n",
    "0002_二.sql": "SELECT 1;\n",
    "0003_optional.sql": "-- dal:optional\nCREATE TABLE extra (id INTEGER PRIMARY KEY);\n",
    "checks/explain.sql": (
        "-- by key\nSELECT name FROM one WHERE id = 1;\n-- by name\nSELECT id FROM one WHERE name = 'x';\n"
    ),
    "checks/verify.sql": "-- one is empty\n-- expect: 0\nSELECT count(*) FROM one;\n",
}


def clock() -> datetime:
    return datetime(2026, 2, 3, 4, 5, 6, 7000, tzinfo=UTC)


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8")


async def run(url: str, tmp_path: Path, **more: object) -> Deployment:
    async with opened(url) as connection:
        return await deploy(
            connection,
            read_set(tmp_path / "migrations", connection.engine),
            report_dir=tmp_path / "reports",
            backups=tmp_path / "backups",
            clock=clock,
            allow=["bad-name"],
            **more,  # type: ignore[arg-type]  # each test names what it needs
        )


def document(tmp_path: Path, name: str) -> dict[str, object]:
    found = json.loads((tmp_path / "reports" / f"{name}.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def text(tmp_path: Path, name: str) -> str:
    return (tmp_path / "reports" / f"{name}.txt").read_text(encoding="utf-8")


async def test_each_report_is_there_for_people_and_for_programs(url: str, tmp_path: Path) -> None:
    write(tmp_path / "migrations", SETUP)
    done = await run(url, tmp_path, leave_out=["0003_optional.sql"])
    assert done.ok, done.message
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [
        f"{name}{suffix}" for name in REPORTS for suffix in (".json", ".txt")
    ]
    for name in REPORTS:
        found = document(tmp_path, name)
        assert (found["report"], found["format"], found["result"]) == (name, 1, "ok")
        assert (found["set"], found["database"], found["environment"]) == ("migrations", done.address, None)
        assert found["started_at"] == "2026-02-03T04:05:06.007Z"
        assert list(found) == sorted(found)
        assert done.address in text(tmp_path, name)
        assert all(line == line.rstrip() for line in text(tmp_path, name).splitlines())


async def test_the_execution_log_says_what_was_done(url: str, tmp_path: Path) -> None:
    write(tmp_path / "migrations", SETUP)
    done = await run(url, tmp_path, leave_out=["0003_optional.sql"])
    found = document(tmp_path, "execution-log")
    phases = found["phases"]
    assert isinstance(phases, list)
    assert [(phase["name"], phase["state"]) for phase in phases] == [(p.name, p.state) for p in done.phases]
    migrations = found["migrations"]
    assert isinstance(migrations, list)
    assert [migration["name"] for migration in migrations] == [m.name for m in done.migrated]
    assert done.backup is not None
    backup = found["backup"]
    assert isinstance(backup, dict)
    assert (backup["file"], backup["sha256"]) == (str(done.backup.path), done.backup.manifest.sha256)
    assert found["left_out"] == [["0003_optional.sql", "it is optional and was asked to be left out"]]
    said = text(tmp_path, "execution-log")
    for fact in ("0001_one.sql", "0003_optional.sql", done.backup.manifest.sha256, done.restore_hint):
        assert fact in said


async def test_the_validation_report_says_what_was_found(url: str, tmp_path: Path) -> None:
    write(tmp_path / "migrations", SETUP)
    await run(url, tmp_path)
    found = document(tmp_path, "validation-report")
    validation, verification, findings = (found[key] for key in ("validation", "verification", "findings"))
    assert isinstance(validation, dict)
    assert isinstance(verification, dict)
    assert isinstance(findings, list)
    assert (validation["ok"], verification["ok"]) == (True, True)
    assert {"rule", "severity", "file", "line", "message", "advice"} == set(findings[0])
    assert any(finding["rule"] == "slow-query" for finding in findings)
    said = text(tmp_path, "validation-report")
    assert "one is empty" in said
    assert "as expected" in said
    assert "slow-query" in said


async def test_the_baseline_says_how_long_everything_took(url: str, tmp_path: Path) -> None:
    write(tmp_path / "migrations", SETUP)
    done = await run(url, tmp_path)
    found = document(tmp_path, "baseline-timings")
    migrations, queries = found["migrations"], found["queries"]
    assert isinstance(migrations, list)
    assert isinstance(queries, list)
    assert {migration["name"]: migration["applied_ms"] for migration in migrations} == {
        migration.name: migration.duration_ms for migration in done.migrated
    }
    assert all(isinstance(migration["scratch_up_ms"], int) for migration in migrations)
    assert [query["name"] for query in queries] == ["by key", "by name"]
    assert queries[0]["indexes"]
    assert queries[1]["full_scans"] == ["one"]
    assert "by name" in text(tmp_path, "baseline-timings")


async def test_a_run_that_fails_is_reported_too(url: str, tmp_path: Path) -> None:
    write(tmp_path / "migrations", {**SETUP, "0004_bad.sql": "CREATE TABLE bad (;\n"})
    done = await run(url, tmp_path)
    assert not done.ok
    found = document(tmp_path, "execution-log")
    assert (found["result"], found["migrations"], found["backup"]) == ("failed", [], None)
    assert "0004_bad.sql" in str(found["outcome"])
    assert "not verified" in text(tmp_path, "validation-report")
    assert document(tmp_path, "baseline-timings")["queries"] == []


async def test_rows_that_the_database_quotes_are_left_out(url: str, tmp_path: Path) -> None:
    write(tmp_path / "migrations", SETUP)
    await run(url, tmp_path)
    execute(url, "INSERT INTO one VALUES (1, 'private; the statement: a@b.c'), (2, 'private; the statement: a@b.c')")
    write(tmp_path / "migrations", {"0004_unique.sql": "CREATE UNIQUE INDEX one_name ON one (name);\n"})
    done = await run(url, tmp_path)
    assert done.failed is not None
    assert done.failed.name == "apply"
    for path in (tmp_path / "reports").iterdir():
        assert "private" not in path.read_text()
        assert "a@b.c" not in path.read_text()
    assert "0004_unique.sql:1 failed" in str(document(tmp_path, "execution-log")["outcome"])
    assert "CREATE UNIQUE INDEX one_name" in text(tmp_path, "execution-log")


async def test_a_later_run_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/dal.db"
    write(tmp_path / "migrations", SETUP)
    await run(url, tmp_path)
    await run(url, tmp_path)
    assert document(tmp_path, "execution-log")["outcome"] == "nothing was applied: nothing is pending"
    assert len(list((tmp_path / "reports").iterdir())) == 6


async def test_the_same_run_gives_the_same_reports(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/dal.db"
    write(tmp_path / "migrations", SETUP)
    done = await run(url, tmp_path)
    for directory in ("a", "b"):
        write_reports(done, tmp_path / directory)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


async def test_reports_that_cannot_be_written_do_not_hide_that_the_files_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:{tmp_path}/dal.db"
    write(tmp_path / "migrations", SETUP)
    (tmp_path / "reports" / "execution-log.txt").mkdir(parents=True)
    done = await run(url, tmp_path)
    assert done.failed is not None
    assert done.failed.name == "report"
    assert "applied before, and staying: 0001_one.sql" in done.message
    assert rows(url, "SELECT count(*) FROM one") == [(0,)]
    assert not [path for path in (tmp_path / "reports").iterdir() if "partial" in path.name]


async def test_a_path_that_is_no_text_does_not_stop_a_report(tmp_path: Path) -> None:
    odd = tmp_path / "caf\udce9"
    url = f"sqlite:{tmp_path}/dal.db"
    write(tmp_path / "migrations", SETUP)
    execute(url, "CREATE TABLE before (id INTEGER)")
    async with opened(url) as connection:
        done = await deploy(
            connection,
            read_set(tmp_path / "migrations", "sqlite"),
            report_dir=tmp_path / "reports",
            backups=odd,
            allow=["bad-name"],
        )
    assert done.ok, done.message
    assert "caf?" in text(tmp_path, "execution-log")
    assert str(document(tmp_path, "execution-log")["outcome"]).startswith("applied ")
