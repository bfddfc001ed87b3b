"""The whole pipeline of `up`, on real engines: every refusal comes before the first write, and says so."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex

import pytest
from pydantic import SecretStr

from dal.schema.backups.backup import list_backups, restore
from dal.schema.deploying.deploy import deploy
from dal.schema.deploying.deployment import Deployment, Phase
from dal.schema.deploying.environments import Project, load_environments
from dal.schema.deploying.statuses import status_all
from dal.schema.files import MigrationSet, read_set
from tests.engines import postgres
from tests.engines.d1 import D1Engine
from tests.schema.opened import execute, opened, rows
from tests.schema.written import write_past_index

ONE = "CREATE TABLE one (id INTEGER PRIMARY KEY, name TEXT);\n"
TWO = "CREATE TABLE two (id INTEGER PRIMARY KEY, one_id INTEGER REFERENCES one (id) ON DELETE CASCADE);\n"
FILES = {
    "0001_one.sql": ONE,
    "rollback/0001_one.sql": "-- dal:allow drop-table\nDROP TABLE one;\n",
    "0002_two.sql": TWO,
    "rollback/0002_two.sql": "-- dal:allow drop-table\nDROP TABLE two;\n",
}


def write(directory: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8")
    return directory


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write(tmp_path / "migrations", FILES)


def read(files: Path, url: str) -> MigrationSet:
    return read_set(files, "postgresql" if url.startswith("postgresql") else "sqlite")


def project_of(directory: Path, text: str, **variables: str) -> Project:
    (directory / "dal.toml").write_text(text, encoding="utf-8")
    return load_environments(
        directory, read_variable=lambda name: SecretStr(variables[name]) if name in variables else None
    )


async def run(url: str, files: Path | None, environment: str | None = None, **more: object) -> Deployment:
    project = more.get("project")
    async with opened(url) as connection:
        return await deploy(
            connection,
            None if files is None else read(files, url),
            project.environment(environment) if isinstance(project, Project) and environment else None,
            connect=opened,
            **more,  # type: ignore[arg-type]  # each test names what it needs
        )


def states(deployment: Deployment) -> dict[str, str]:
    return {phase.name: phase.state for phase in deployment.phases}


def tables(url: str) -> set[object]:
    """The names of all tables, the tool's own included."""
    sql = (
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        if url.startswith("sqlite")
        else "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    )
    return {name for (name,) in rows(url, sql)}


def names(deployment: Deployment) -> list[str]:
    return [migration.name for migration in deployment.migrated]


async def test_everything_is_looked_at_applied_and_looked_at_again(url: str, files: Path, tmp_path: Path) -> None:
    told: list[Phase] = []
    done = await run(url, files, backups=tmp_path / "backups", on_phase=told.append)
    assert done.ok, done.message
    assert states(done) == {
        "binding": "done",
        "plan": "done",
        "order": "skipped",
        "validate": "done",
        "lint": "done",
        "backup": "done",
        "apply": "done",
        "verify": "done",
        "explain": "skipped",
    }
    assert names(done) == ["0001_one.sql", "0002_two.sql"]
    assert done.message == "applied 0001_one.sql, 0002_two.sql"
    assert done.verification is not None
    assert done.verification.ok
    assert {"one", "two"} <= tables(url)
    assert [phase for phase in told if phase.state != "running"] == list(done.phases)
    assert [phase.name for phase in told if phase.state == "running"] == [
        phase.name for phase in done.phases if phase.state != "skipped"
    ]
    assert done.backup is not None
    assert rows(url, "SELECT DISTINCT backup_ref FROM dal_migration_details") == [(done.backup.path.name,)]


async def test_where_nothing_is_pending_nothing_is_done(url: str, files: Path, tmp_path: Path) -> None:
    await run(url, files)
    done = await run(url, files, backups=tmp_path / "backups")
    assert done.ok
    assert states(done) == {"binding": "done", "plan": "done"}
    assert done.message == "nothing was applied: nothing is pending"
    assert not (tmp_path / "backups").exists()


async def test_a_finding_of_the_plan_ends_the_run_until_allowed(url: str, files: Path) -> None:
    await run(url, files)
    write(
        files, {"0001_one.sql": ONE + "-- changed\n", "0003_three.sql": "CREATE TABLE three (id INTEGER PRIMARY KEY);"}
    )
    done = await run(url, files)
    assert (done.ok, list(states(done))) == (False, ["binding", "plan"])
    assert "edited-migration" in done.message
    assert done.message.endswith("nothing was written")
    assert "three" not in tables(url)
    assert names(await run(url, files, allow=["edited-migration"])) == ["0003_three.sql"]


async def test_a_file_that_does_not_run_is_found_before_anything_is_written(
    url: str, files: Path, tmp_path: Path
) -> None:
    write(files, {"0003_bad.sql": "CREATE TABLE three (id INTEGER);\n\nCREATE INDEX i ON nowhere (id);\n"})
    done = await run(url, files, backups=tmp_path / "backups")
    assert done.failed is not None
    assert done.failed.name == "validate"
    assert "0003_bad.sql:3" in done.message
    assert "nowhere" in done.message
    assert done.message.endswith("nothing was written")
    assert tables(url) == set()
    assert not (tmp_path / "backups").exists()


async def test_a_dangerous_statement_is_refused_until_allowed(url: str, files: Path) -> None:
    await run(url, files)
    write(files, {"0003_drop.sql": "DROP TABLE two;\n", "rollback/0003_drop.sql": TWO})
    done = await run(url, files)
    assert done.failed is not None
    assert done.failed.name == "lint"
    rules = {finding.rule for finding in done.failed.findings if finding.severity == "error"}
    assert "0003_drop.sql:1" in done.message
    assert "two" in tables(url)
    assert (await run(url, files, allow=rules)).ok
    assert "two" not in tables(url)


async def test_what_was_applied_long_ago_is_not_judged_again(url: str, files: Path) -> None:
    await run(url, files)
    write(files, {"0003_drop.sql": "DROP TABLE two;\n", "rollback/0003_drop.sql": TWO})
    first = await run(url, files)
    assert first.failed is not None
    assert (await run(url, files, allow={finding.rule for finding in first.failed.findings})).ok
    write(files, {"0004_more.sql": "CREATE TABLE four (id INTEGER PRIMARY KEY);\n"})
    done = await run(url, files)
    assert done.ok, done.message
    assert names(done) == ["0004_more.sql"]


async def test_a_failure_on_the_data_names_the_backup_and_how_to_go_back(url: str, files: Path, tmp_path: Path) -> None:
    """Nothing finds this but the data: the scratch database has no rows."""
    await run(url, files)
    execute(url, "INSERT INTO one VALUES (1, 'same'), (2, 'same')")
    write(
        files,
        {
            "0003_fine.sql": "CREATE TABLE three (id INTEGER PRIMARY KEY);\n",
            "0004_unique.sql": "CREATE UNIQUE INDEX one_name ON one (name);\n",
        },
    )
    done = await run(url, files, backups=tmp_path / "backups")
    assert done.failed is not None
    assert done.failed.name == "apply", done.message
    assert "0004_unique.sql" in done.failed.message
    assert names(done) == ["0003_fine.sql"]
    assert "applied before, and staying: 0003_fine.sql" in done.message
    assert done.backup is not None
    assert f"dal schema restore {done.backup.path} --url " in done.message
    assert "three" in tables(url)
    async with opened(url) as connection:
        assert (await restore(connection, done.backup.path)).ok
    assert "three" not in tables(url)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_broken_index_ends_the_run_before_a_migration_reads_by_it(
    url: str, files: Path, tmp_path: Path
) -> None:
    execute(url, "CREATE TABLE before (id INTEGER PRIMARY KEY, name TEXT)", "CREATE INDEX by_name ON before (name)")
    write_past_index(Path(url.removeprefix("sqlite:")), "by_name", "INSERT INTO before VALUES (1, 'Ada')")
    done = await run(url, files, backups=tmp_path / "backups")
    assert done.failed is not None
    assert done.failed.name == "backup"
    assert "row 1 missing from index by_name" in done.message
    assert "one" not in tables(url)
    assert (await run(url, files, backups=tmp_path / "backups", allow={"broken-index"})).ok


async def test_a_backup_that_cannot_be_made_ends_the_run_before_anything_is_written(
    url: str, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    done = await run(url, files, backups=tmp_path / "file")
    assert done.failed is not None
    assert done.failed.name == "backup"
    assert "no backup was made" in done.message
    assert done.message.endswith("nothing was written")
    assert tables(url) == set()


async def test_a_disk_that_is_full_ends_the_run_before_anything_is_written(
    url: str, files: Path, tmp_path: Path
) -> None:
    await run(url, files)
    noise = ", ".join(f"({number}, '{token_hex(2000)}')" for number in range(1000))
    execute(url, f"INSERT INTO one VALUES {noise}")
    write(files, {"0003_three.sql": "CREATE TABLE three (id INTEGER PRIMARY KEY);\n"})
    # No file of the process, nor of pg_dump, may grow beyond the limit: to them the disk is full.
    script = f"""
import asyncio, resource, signal
from pathlib import Path
from dal.factory import schema_connection
from dal.schema import read_set
from dal.schema.deploying.deploy import deploy
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
async def main():
    async with schema_connection({url!r}) as connection:
        migrations = read_set(Path({str(files)!r}), connection.engine)
        done = await deploy(connection, migrations, backups=Path({str(tmp_path / "backups")!r}))
        print(done.failed.name, done.message)
asyncio.run(main())
"""
    said = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert said.stdout.startswith("backup "), said.stderr
    assert said.stdout.rstrip().endswith("nothing was written")
    assert "three" not in tables(url)
    assert list_backups(tmp_path / "backups") == []
    assert not any((tmp_path / "backups").iterdir())


async def test_reports_that_cannot_be_written_end_the_run_before_anything_is_written(
    url: str, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    done = await run(url, files, report_dir=tmp_path / "file")
    assert done.failed is not None
    assert (done.failed.name, tables(url)) == ("binding", set())


async def test_a_check_that_fails_afterwards_says_what_stays(url: str, files: Path) -> None:
    write(files, {"checks/verify.sql": "-- rows of one\n-- expect: 7\nSELECT count(*) FROM one;\n"})
    done = await run(url, files)
    assert done.failed is not None
    assert done.failed.name == "verify"
    assert "checks/verify.sql" in done.failed.message
    assert "applied before, and staying: 0001_one.sql, 0002_two.sql" in done.message


async def test_a_slow_query_is_a_warning(url: str, files: Path) -> None:
    write(files, {"checks/explain.sql": "-- by name\nSELECT id FROM one WHERE name = 'x';\n"})
    done = await run(url, files)
    assert done.ok
    (query,) = done.explained
    assert query.full_scan
    assert [(f.rule, f.severity) for f in done.findings if f.rule == "slow-query"] == [("slow-query", "warning")]


async def test_only_up_to_the_file_that_is_named(url: str, files: Path) -> None:
    assert names(await run(url, files, to="0001_one.sql")) == ["0001_one.sql"]
    assert names(await run(url, files)) == ["0002_two.sql"]


async def test_two_deployments_at_once_both_end_well(url: str, files: Path) -> None:
    one, other = await asyncio.gather(run(url, files), run(url, files))
    assert one.ok, one.message
    assert other.ok, other.message
    assert sorted([*names(one), *names(other)]) == ["0001_one.sql", "0002_two.sql"]


async def test_the_librarys_own_set_is_planned_and_applied(url: str, tmp_path: Path) -> None:
    done = await run(url, None)
    assert done.ok, done.message
    assert names(done) == ["0001_core.sql", "0002_search.sql", "0003_files.sql", "0004_file_names.sql"]
    assert [name for name, state in states(done).items() if state == "done"] == ["binding", "plan", "apply"]


async def test_the_librarys_own_set_is_backed_up_where_that_is_demanded(url: str, tmp_path: Path) -> None:
    project = project_of(tmp_path, "[environments.prod]\nurl_variable = 'URL'\nrequire_backup = true\n", URL=url)
    done = await run(url, None, "prod", project=project, leave_out=["0002_search.sql"])
    assert names(done) == ["0001_core.sql", "0003_files.sql", "0004_file_names.sql"]
    assert done.backup is not None
    assert done.backup.path.parent == tmp_path / "backups"
    assert done.restore_hint == f"dal schema restore {done.backup.path} --env prod"


async def test_no_secret_reaches_the_record(
    postgres_server: postgres.PostgresServer, files: Path, tmp_path: Path
) -> None:
    if not postgres_server.owned:
        pytest.skip("needs the role with a password that our own server has")
    name = postgres_server.create_database().rsplit("/", 1)[1]
    url = postgres_server.url(name, user=postgres.PASSWORD_ROLE, password=postgres.PASSWORD)
    done = await run(url, files, backups=tmp_path / "b", report_dir=tmp_path / "reports")
    assert done.ok, done.message
    shown = repr(done) + "".join(path.read_text() for path in (tmp_path / "reports").iterdir())
    assert postgres.PASSWORD not in shown


# Environments ---------------------------------------------------------------------------------------------------------

RULES = """
[environments.staging]
url_variable = "STAGING"
database = "cutty-*"
[environments.prod]
url_variable = "PROD"
database = "cutty-prod"
require_backup = true
after = "staging"
"""


@pytest.fixture
def urls(tmp_path: Path) -> dict[str, str]:
    return {"STAGING": f"sqlite:{tmp_path}/cutty-staging.db", "PROD": f"sqlite:{tmp_path}/cutty-prod.db"}


async def test_a_wrongly_bound_environment_is_not_touched(files: Path, tmp_path: Path, urls: dict[str, str]) -> None:
    project = project_of(tmp_path, RULES, **urls)
    done = await run(urls["STAGING"], files, "prod", project=project)
    assert done.failed is not None
    assert done.failed.name == "binding"
    assert "'cutty-staging'" in done.message
    assert "'cutty-prod'" in done.message
    assert tables(urls["STAGING"]) == set()


async def test_a_d1_database_is_known_by_its_name_and_not_by_its_id(
    d1_engine: D1Engine, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = (d1_engine.create_database(f"{name}-{token_hex(4)}") for name in ("cutty-prod", "cutty-dev"))
    for name, value in right.environment.items():
        monkeypatch.setenv(name, value)
    text = "[environments.prod]\nurl_variable = 'URL'\ndatabase = 'cutty-prod-*'\n"
    done = await run(wrong.url, files, "prod", project=project_of(tmp_path, text, URL=wrong.url))
    assert done.failed is not None
    assert done.failed.name == "binding"
    assert "leads to database 'cutty-dev-" in done.message
    done = await run(right.url, files, "prod", project=project_of(tmp_path, text, URL=right.url))
    assert done.ok, done.message
    assert names(done) == ["0001_one.sql", "0002_two.sql"]


async def test_production_gets_only_what_staging_has(files: Path, tmp_path: Path, urls: dict[str, str]) -> None:
    project = project_of(tmp_path, RULES, **urls)
    await run(urls["STAGING"], files, "staging", project=project, to="0001_one.sql")
    done = await run(urls["PROD"], files, "prod", project=project)
    assert done.failed is not None
    assert done.failed.name == "order"
    assert "it lacks 0002_two.sql; bring staging up first" in done.message
    assert tables(urls["PROD"]) == set()
    await run(urls["STAGING"], files, "staging", project=project)
    done = await run(urls["PROD"], files, "prod", project=project)
    assert done.ok, done.message
    assert len(list_backups(tmp_path / "backups")) == 1


async def test_up_to_what_staging_has_is_fine(files: Path, tmp_path: Path, urls: dict[str, str]) -> None:
    project = project_of(tmp_path, RULES, **urls)
    await run(urls["STAGING"], files, "staging", project=project, to="0001_one.sql")
    assert names(await run(urls["PROD"], files, "prod", project=project, to="0001_one.sql")) == ["0001_one.sql"]


async def test_another_content_than_on_staging_is_refused(files: Path, tmp_path: Path, urls: dict[str, str]) -> None:
    project = project_of(tmp_path, RULES, **urls)
    await run(urls["STAGING"], files, "staging", project=project)
    write(files, {"0002_two.sql": TWO + "-- better\n"})
    done = await run(urls["PROD"], files, "prod", project=project)
    assert "it has 0002_two.sql with another content" in done.message
    assert tables(urls["PROD"]) == set()


async def test_staging_that_cannot_be_asked_is_a_refusal(files: Path, tmp_path: Path, urls: dict[str, str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"postgresql://me:secret-word@127.0.0.1:{nobody.getsockname()[1]}/cutty-staging"
        project = project_of(tmp_path, RULES, PROD=urls["PROD"], STAGING=url)
        done = await run(urls["PROD"], files, "prod", project=project)
    assert done.failed is not None
    assert done.failed.name == "order"
    assert "prod comes after staging, which could not be asked" in done.message
    assert "secret-word" not in done.message
    assert tables(urls["PROD"]) == set()


async def test_staging_that_is_wrongly_bound_or_unset_is_a_refusal(
    files: Path, tmp_path: Path, urls: dict[str, str]
) -> None:
    project = project_of(tmp_path, RULES, PROD=urls["PROD"], STAGING=f"sqlite:{tmp_path}/other.db")
    assert "staging is wrongly bound" in (await run(urls["PROD"], files, "prod", project=project)).message
    project = project_of(tmp_path, RULES, PROD=urls["PROD"])
    assert "STAGING is not set" in (await run(urls["PROD"], files, "prod", project=project)).message


async def test_a_file_for_production_alone_is_not_asked_of_staging(
    files: Path, tmp_path: Path, urls: dict[str, str]
) -> None:
    write(files, {"0003_prod.sql": "-- dal:env prod\nCREATE TABLE three (id INTEGER PRIMARY KEY);\n"})
    project = project_of(tmp_path, RULES, **urls)
    await run(urls["STAGING"], files, "staging", project=project)
    done = await run(urls["PROD"], files, "prod", project=project)
    assert done.ok, done.message
    assert "three" in tables(urls["PROD"])
    assert "three" not in tables(urls["STAGING"])


async def test_seeds_go_where_they_are_wanted(files: Path, tmp_path: Path, urls: dict[str, str]) -> None:
    write(files, {"0003_seed.sql": "-- dal:env seed\nINSERT INTO one VALUES (1, 'seed') ON CONFLICT DO NOTHING;\n"})
    text = "[environments.dev]\nurl_variable = 'STAGING'\nseed = true\n[environments.live]\nurl_variable = 'PROD'\n"
    project = project_of(tmp_path, text, **urls)
    assert (await run(urls["STAGING"], files, "dev", project=project, allow=["rollback-differs"])).ok
    assert (await run(urls["PROD"], files, "live", project=project)).ok
    assert rows(urls["STAGING"], "SELECT name FROM one") == [("seed",)]
    assert rows(urls["PROD"], "SELECT name FROM one") == []


# Every environment at once --------------------------------------------------------------------------------------------


async def test_all_environments_in_one_table(
    files: Path, tmp_path: Path, urls: dict[str, str], postgres_server: postgres.PostgresServer
) -> None:
    more = """
[schema]
directory = "migrations"
[environments.gone]
url = "postgresql://me@127.0.0.1:1/cutty-gone"
[environments.unset]
url = "$NOWHERE"
[environments.silent]
url_variable = "SILENT"
[environments.other]
url_variable = "PROD"
database = "something-else"
[environments.server]
url_variable = "SERVER"
[environments.absent]
url = "sqlite:absent.db"
"""
    server = postgres_server.create_database()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"postgresql://me:secret-word@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=60"
        project = project_of(tmp_path, RULES + more, **urls, SILENT=address, SERVER=server)
        await run(urls["STAGING"], files, "staging", project=project)
        await run(urls["PROD"], files, to="0001_one.sql")

        from dal.factory import schema_connection

        table = {row.name: row for row in await status_all(project, schema_connection, timeout_s=5)}
    assert list(table) == ["staging", "prod", "gone", "unset", "silent", "other", "server", "absent"]
    assert (table["staging"].ok, table["staging"].applied, table["staging"].last) == (True, 2, "0002_two.sql")
    assert (table["prod"].ok, table["prod"].pending, table["prod"].database) == (False, ("0002_two.sql",), "cutty-prod")
    assert table["server"].pending == ("0001_one.sql", "0002_two.sql")
    for name, said in {
        "gone": "127.0.0.1:1",
        "unset": "NOWHERE is not set",
        "silent": "did not answer",
        "other": "wrongly bound",
        "absent": "is not there",
    }.items():
        assert said in table[name].problem, table[name]
        assert not table[name].ok
    assert "secret-word" not in repr(table)
    assert not (tmp_path / "absent.db").exists()
