"""Fixtures that every test may ask for: the engines, and an honest word about those that are missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final, TypeVar

import pytest
from hypothesis import settings

from dal.config import Settings
from tests import hanging, stalls
from tests.engines import d1, d1_worker, honesty, postgres, s3, scratch

#: Where tests are that take ten seconds and more.
LONG: Final = (
    "demo_move/test_demo_move.py",
    "docs/test_pages.py",
    "files/test_killed.py",
    "importing/test_killed.py",
    "model/test_stateful.py",
    "move/test_torture.py",
    "packaging/test_distributions.py",
    "schema_sets/test_command_line.py",
)

_Engine = TypeVar("_Engine", d1.D1Engine, d1_worker.D1WorkerEngine, s3.R2Engine, s3.RcloneEngine)


def pytest_configure(config: pytest.Config) -> None:
    honesty.required_engines()
    scratch.prefer_memory()
    config.pluginmanager.register(stalls.Stalls())
    # No timed assertion in the tests: a busy machine is not a bug. A failure prints how to repeat it.
    settings.register_profile("dal", deadline=None, print_blob=True)
    settings.load_profile("dal")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """One worker more than there are processors: while one waits for an engine or a child, another has work."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that no worker ends with one alone; else the order stays, which is random."""
    long = {Path(__file__).parent / name for name in LONG}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer() -> Generator[None, object, object]:
    """A test that hangs tells what its tasks wait for, before pytest-timeout ends it."""
    answer = yield
    hanging.show_tasks_first()
    return answer


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of a run in several processes hands over what it was missing."""
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["missing_engines"] = honesty.missing()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    output: dict[str, dict[str, str]] = getattr(node, "workeroutput", {})  # a worker that crashed has none
    honesty.remember(output.get("missing_engines", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in honesty.lines():
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(autouse=True)
def _no_settings_left_behind() -> Iterator[None]:
    """A test that leaves settings in the environment would be met by whichever test comes next."""
    before = _settings()
    yield
    assert _settings() == before, "this test has changed the environment for those that follow"


def _settings() -> dict[str, str]:
    names = map(str.upper, Settings.model_fields)
    return {name: os.environ[name] for name in names if name in os.environ}


_SERVER: Final = pytest.StashKey[postgres.PostgresServer]()


@pytest.fixture(autouse=True)
def _no_database_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """The databases that a test has made go when it has ended: files are in memory."""
    yield
    if _SERVER in request.config.stash:
        request.config.stash[_SERVER].drop_passing()


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[postgres.PostgresServer]:
    """A PostgreSQL server for this run, shared: never stop it (ask for `own_postgres` to do that)."""
    try:
        server = postgres.obtain()
    except postgres.EngineMissingError as error:
        honesty.not_tested("postgresql", str(error))
    request.config.stash[_SERVER] = server
    yield server
    del request.config.stash[_SERVER]
    server.close()


@pytest.fixture(scope="session")
def postgres_url(postgres_server: postgres.PostgresServer) -> str:
    """An empty database of this run's own. Whoever uses it makes the schema and calls `postgres.clean(url)`."""
    return postgres_server.create_database(lasts=True)


@pytest.fixture
def own_postgres() -> Iterator[postgres.OwnServer]:
    """A server of this test's own, to be stopped, killed and restarted at will."""
    try:
        server = postgres.OwnServer(postgres.find_binaries())
    except (postgres.EngineMissingError, RuntimeError, OSError) as error:
        honesty.not_tested("postgresql", str(error))
    yield server
    server.close()


@pytest.fixture(scope="session")
def d1_engine() -> Iterator[d1.D1Engine]:
    """D1's engine for this run, shared: never stop it (ask for `own_d1` to do that). Ask it for a database."""
    yield from _running("d1", d1.D1Engine)


@pytest.fixture
def own_d1() -> Iterator[d1.D1Engine]:
    """An engine of this test's own, to be killed and started again at will."""
    yield from _running("d1", d1.D1Engine)


@pytest.fixture(scope="session")
def d1_worker_engine() -> Iterator[d1_worker.D1WorkerEngine]:
    """The companion Worker on D1's real binding, for this run; `clean` it before use."""
    yield from _running("d1-worker", d1_worker.D1WorkerEngine)


@pytest.fixture(scope="session")
def r2_engine() -> Iterator[s3.R2Engine]:
    """R2 in Miniflare, for this run: never stop it. Ask it for a place in its bucket."""
    yield from _running("r2", s3.R2Engine)


@pytest.fixture(scope="session")
def rclone_engine() -> Iterator[s3.RcloneEngine]:
    """`rclone serve s3`, for this run: never stop it. Ask it for a place in its bucket."""
    yield from _running("rclone", s3.RcloneEngine)


@pytest.fixture
def own_rclone() -> Iterator[s3.RcloneEngine]:
    """A server of this test's own, to be killed and started again at will."""
    yield from _running("rclone", s3.RcloneEngine)


def _running(name: str, start: Callable[[], _Engine]) -> Iterator[_Engine]:
    try:
        engine = start()
    except (postgres.EngineMissingError, OSError) as error:
        honesty.not_tested(name, str(error))
    yield engine
    engine.close()
