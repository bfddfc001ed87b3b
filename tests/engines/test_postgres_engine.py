"""The launcher itself: it leaves nothing behind, and says what it could not start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from tests.engines import child, honesty, postgres

ROOT = Path(__file__).resolve().parents[2]


def test_a_crashed_server_comes_back_at_its_address_with_its_rows(own_postgres: postgres.OwnServer) -> None:
    url = own_postgres.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (n int)")
        connection.execute("INSERT INTO t VALUES (7)")
    own_postgres.restart(crash=True)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT n FROM t").fetchall() == [(7,)]


def test_a_database_that_was_not_made_to_last_goes(own_postgres: postgres.OwnServer) -> None:
    passing, lasting = own_postgres.create_database(), own_postgres.create_database(lasts=True)
    own_postgres.drop_passing()
    psycopg.connect(lasting).close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(passing)


def test_a_connection_is_kept_until_its_server_ends_it(own_postgres: postgres.OwnServer) -> None:
    url = own_postgres.url()
    kept = postgres.kept_connection(url)
    assert postgres.kept_connection(url) is kept
    own_postgres.restart(crash=True)
    assert postgres.kept_connection(url).execute("SELECT 7").fetchone() == (7,)


def test_a_session_that_a_test_has_left_holds_up_one_test_and_no_other(own_postgres: postgres.OwnServer) -> None:
    other, url = own_postgres.create_database(), own_postgres.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE users (id int)")
    locking = psycopg.connect(url)
    locking.execute("LOCK users")
    with impatient(url), pytest.raises(RuntimeError, match="LOCK users"):
        postgres.clean(url)
    postgres.clean(url)
    copying = psycopg.connect(url, autocommit=True)
    copying.pgconn.exec_(b"COPY users FROM STDIN")
    waits = "SELECT wait_event = 'ClientRead' AND state = 'active' FROM pg_stat_activity WHERE pid = %s"
    with psycopg.connect(own_postgres.url(), autocommit=True) as watcher:
        while watcher.execute(waits, (copying.info.backend_pid,)).fetchone() != (True,):
            pass
    with impatient(own_postgres.url()), pytest.raises(RuntimeError, match="COPY users"):
        own_postgres.drop_database(other)
    own_postgres.drop_database(other)
    for connection in (locking, copying):
        connection.close()


@contextmanager
def impatient(url: str) -> Iterator[None]:
    """The connection that is kept to that database waits for hardly anything."""
    kept = postgres.kept_connection(url)
    assert kept.execute("SHOW statement_timeout").fetchone() == (postgres.PATIENCE,)
    kept.execute("SET statement_timeout = '200ms'")
    yield
    kept.execute(f"SET statement_timeout = '{postgres.PATIENCE}'")


def test_sessions_that_take_their_time_to_end_are_waited_for(
    own_postgres: postgres.OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, tries, execute = own_postgres.create_database(), 0, own_postgres._admin

    def refuse_once(statement: LiteralString, name: str) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise psycopg.errors.ObjectInUse
        execute(statement, name)

    monkeypatch.setattr(own_postgres, "_admin", refuse_once)
    own_postgres.drop_database(url)
    assert tries == 2
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def test_a_role_with_a_password_must_show_it(own_postgres: postgres.OwnServer) -> None:
    right = own_postgres.url(user=postgres.PASSWORD_ROLE, password=postgres.PASSWORD)
    psycopg.connect(right).close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(own_postgres.url(user=postgres.PASSWORD_ROLE, password="wrong"))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_the_server_ends_when_its_starter_is_killed(postgres_server: postgres.PostgresServer) -> None:
    if not postgres_server.owned:
        pytest.skip("the server is somebody else's")
    environment = {k: v for k, v in os.environ.items() if k != "DB_HOST"}
    starter = subprocess.Popen(
        [sys.executable, "-m", "tests.engines.postgres"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    assert starter.stdin is not None
    url = starter.stdout.readline().strip()
    with psycopg.connect(url) as connection:
        (data,) = connection.execute("SHOW data_directory").fetchone() or ("",)
        starter.send_signal(signal.SIGKILL)
        starter.wait(10)
        starter.stdin.close()
        starter.stdout.close()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(30)")
    left = Path(data).parent
    while left.exists():  # the server writes to its last
        child.remove(child.private_directory("dal-pg-"))


def _run(test: Path, tmp_path: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    left_out = {"DAL_TEST_DSN", "DB_HOST", "DAL_REQUIRE_ENGINES"}
    kept = {k: v for k, v in os.environ.items() if k not in left_out and not k.startswith("PYTEST_XDIST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(test)],
        cwd=ROOT,
        env={**kept, postgres.BINARIES_VARIABLE: str(tmp_path / "nothing"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("required", "code", "said"),
    [
        ("", 0, "ENGINE NOT TESTED: postgresql"),
        ("postgresql", 1, "requires it"),
        ("postgersql", 4, "names postgersql"),
    ],
)
def test_an_engine_that_is_not_there_is_said_or_fails(tmp_path: Path, required: str, code: int, said: str) -> None:
    claim = "test_a_role_with_a_password_must_show_it"
    done = _run(Path(f"{__file__}::{claim}"), tmp_path, **{honesty.REQUIRE_VARIABLE: required})
    assert said in done.stdout + done.stderr
    assert done.returncode == code


def test_an_engine_that_a_worker_process_missed_is_said_at_the_end(tmp_path: Path) -> None:
    claim = "test_a_role_with_a_password_must_show_it"
    done = _run(Path(f"{__file__}::{claim}"), tmp_path, "--numprocesses", "2")
    assert done.stdout.count("ENGINE NOT TESTED: postgresql") == 1
