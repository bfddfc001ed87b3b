"""The stores of a run, each with what can befall it: how it goes away, how it comes back.

A place belongs to the supervisor. What other processes need of it is plain data that a fork takes along.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

import psycopg

from dal.config import Settings
from dal.factory import create_store
from dal.replica import Movable
from dal.store import Store
from tests.engines import postgres
from tests.engines.d1 import D1Database, D1Engine
from tests.engines.postgres import OwnServer
from tests.torture.disk import SmallDisk
from tests.torture.programs import D1Program, PostgresProgram, SqliteProgram, SqlProgram

BACKENDS: Final = ("file", "sqlite", "d1", "postgresql")
#: What a move can come from; files that programs write which know no library.
LEGACY: Final = "legacy"
#: What a fault does, until it is over. It blocks the supervisor.
Fault = Callable[[float], None]


class Place:
    """One store of a run. url and settings are what every process opens it with."""

    backend: ClassVar[str]
    url: str

    def settings(self) -> dict[str, object]:
        """What Settings needs beside the URL."""
        return {}

    def faults(self) -> dict[str, Fault]:
        """What can befall this store, by name; each takes for how long. Calls to the store may fail meanwhile."""
        return {}

    def program(self) -> SqlProgram | None:
        """A program of others that writes here; None where there is none yet."""
        return None

    def revive(self) -> None:
        """Makes sure that the store serves again."""

    def close(self) -> None:
        """Ends what was started."""


class FilePlace(Place):
    backend = "file"

    def __init__(self, disk: SmallDisk, name: str) -> None:
        self._disk = disk
        self.directory = disk.directory / name
        self.url = f"file://{self.directory}"

    def faults(self) -> dict[str, Fault]:
        return {"disk full": self._disk.fill} if self._disk.is_there else {}


class LegacyPlace(Place):
    """On the run's own disk: programs that write in place have no way back from one that is full."""

    backend = LEGACY

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory / name
        self.url = f"legacy:{self.directory}"


class SqlitePlace(Place):
    backend = "sqlite"

    def __init__(self, disk: SmallDisk, name: str) -> None:
        self._disk = disk
        self._path = disk.directory / f"{name}.db"
        self.url = f"sqlite://{self._path}"

    def faults(self) -> dict[str, Fault]:
        full: dict[str, Fault] = {"disk full": self._disk.fill} if self._disk.is_there else {}
        return {"sqlite: a long transaction": self._hold, **full}

    def program(self) -> SqlProgram:
        return SqliteProgram(self._path)

    def _hold(self, for_s: float) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=5)
        try:
            with suppress(sqlite3.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
            time.sleep(for_s)
        finally:
            connection.close()


class PostgresPlace(Place):
    backend = "postgresql"

    def __init__(self) -> None:
        self._server = OwnServer(postgres.find_binaries(), settings=("max_connections=300",))
        self.url = self._server.create_database("torture")

    def faults(self) -> dict[str, Fault]:
        return {
            "postgresql: connections cut": self._cut,
            "postgresql: down": self._down,
            "postgresql: crash": self._crash,
        }

    def program(self) -> SqlProgram:
        return PostgresProgram(self.url)

    def _cut(self, for_s: float) -> None:
        ends = time.monotonic() + min(for_s, 0.5)
        while time.monotonic() < ends:
            with suppress(psycopg.Error), psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.5"
                )
            time.sleep(0.1)

    def _down(self, for_s: float) -> None:
        self._server.stop()
        time.sleep(for_s)
        self._server.start()

    def _crash(self, _for_s: float) -> None:
        self._server.restart(crash=True)

    def revive(self) -> None:
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.url, connect_timeout=2).close()
            return
        self._server.restart(crash=True)

    def close(self) -> None:
        self._server.close()


class D1Place(Place):
    """Two of them share one engine: there is one address and one token in a process's settings."""

    backend = "d1"

    def __init__(self, engine: D1Engine) -> None:
        self._engine = engine
        self._database: D1Database = engine.create_database()
        self.url = self._database.url

    def settings(self) -> dict[str, object]:
        return {"d1_api_base": self._database.base, "d1_api_token": self._database.token}

    def faults(self) -> dict[str, Fault]:
        return {"d1: down": self._down, "d1: answers lost": self._lose_answers}

    def program(self) -> SqlProgram:
        found = self._database
        return D1Program(found.base, found.account, found.token, found.id)

    def _down(self, for_s: float) -> None:
        self._engine.kill()
        time.sleep(for_s)
        self._engine.start()

    def _lose_answers(self, for_s: float) -> None:
        self._engine.faults(
            self._database,
            {"when": "after", "match": "", "count": 3, "drop": True},
            {"when": "before", "match": "", "skip": 3, "count": 2, "drop": True},
            {"when": "after", "match": "", "skip": 4, "count": 2, "status": 500, "body": "<html>"},
        )
        time.sleep(for_s)
        self._engine.faults(self._database)

    def close(self) -> None:
        self._engine.close()


def make_places(source: str, target: str, disk: SmallDisk) -> tuple[Place, Place]:
    """Empty stores of these backends; those that are files lie on this disk. Raises EngineMissingError."""
    engine = D1Engine() if "d1" in (source, target) else None
    made: list[Place] = []
    try:
        for name, backend in (("source", source), ("target", target)):
            if backend == "file":
                made.append(FilePlace(disk, name))
            elif backend == LEGACY:
                made.append(LegacyPlace(disk.directory.parent, name))
            elif backend == "sqlite":
                made.append(SqlitePlace(disk, name))
            elif backend == "postgresql":
                made.append(PostgresPlace())
            else:
                assert engine is not None
                made.append(D1Place(engine))
    except BaseException:
        for place in made:
            place.close()
        raise
    return made[0], made[1]


def open_settings(places: tuple[Place, Place], *, moving: bool) -> Settings:
    """The settings of a process; `moving` as an application that takes part in the move has them."""
    given: dict[str, object] = {"db_max_connections": 8}
    for place in places:
        given |= place.settings()
    if moving:
        given |= {"migration_enable_dual_write": True, "migration_target_url": places[1].url}
    return Settings(**given)


def bare(place: Place, settings: Settings) -> Store:
    """The bare store, not yet open."""
    return create_store(place.url, settings=settings, auto_migrate=False)


def is_movable(backend: str) -> bool:
    """Whether this backend can take part in a move by now."""
    urls = {"file": "file:nowhere", "sqlite": "sqlite:nowhere.db", "postgresql": "postgresql://127.0.0.1/none"}
    settings = Settings(d1_api_token="none")
    store = create_store(urls.get(backend, "d1://none/none"), settings=settings, auto_migrate=False)
    if not isinstance(store, Movable):
        return False
    try:
        store.replica()
    except NotImplementedError:
        return False
    except Exception:  # it wants to be open first
        return True
    return True
