"""What a command works on: a database, the migrations for it, and the environment that may name both.

`--env` names both; `--url` names a database, and `--dir` migrations of one's own; without them, the environment
variables and the library's own migrations. `dal.toml` counts for `--env` only, and for the commands that need no
database: a database that was named by its URL never gets a project's migrations unasked.
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dal.errors import InvalidInputError, SchemaError

if TYPE_CHECKING:
    from dal.schema import Connection, MigrationSet, Reader
    from dal.schema.connection import EngineName
    from dal.schema.deploying.environments import Environment
    from dal.urls import StoreUrl

_OWN_LAYOUT = ("file", "memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """url        of the database; None: what the environment variables name.
    directory  of the migrations; None: the library's own."""

    url: str | None
    directory: Path | None
    environment: Environment | None = None

    @property
    def name(self) -> str | None:
        """Of the environment."""
        return None if self.environment is None else self.environment.name

    @property
    def seed(self) -> bool:
        """Files for `env seed` are meant for this database."""
        return self.environment is not None and self.environment.seed

    @property
    def backups(self) -> Path:
        """Where its backups go."""
        return Path("backups") if self.environment is None else self.environment.backups

    @property
    def place(self) -> StoreUrl:
        """What the URL or the environment variables name. Raises ConfigurationError where that is nothing."""
        from dal.config import Settings
        from dal.factory import store_url
        from dal.urls import parse_url

        return store_url(Settings()) if self.url is None else parse_url(self.url)

    @property
    def backend(self) -> str:
        return self.place.backend

    @property
    def keeps_own_layout(self) -> bool:
        """The store has no migrations; it is up to date when it opens."""
        return self.backend in _OWN_LAYOUT

    @property
    def absent(self) -> Path | None:
        """The file of an SQLite database that is not there yet."""
        path = self.place.path
        return None if self.keeps_own_layout or path is None or path.exists() else path

    def migrations(self, engine: EngineName) -> MigrationSet:
        from dal.schema import library_set, read_set

        return library_set(engine) if self.directory is None else read_set(self.directory, engine)

    @asynccontextmanager
    async def connect(self, *, create: bool = False) -> AsyncIterator[Connection]:
        """A connection to the database, whose name has been checked against the environment's pattern.

        create  an SQLite database that is not there yet is made.
        """
        if self.keeps_own_layout:
            raise InvalidInputError(
                f"a {self.backend} store keeps a layout of its own, which has no migrations; "
                "name a database with --url or --env"
            )
        from dal.factory import schema_connection

        path = self.absent
        if path is not None:
            if self.environment is not None:
                self.environment.check_name(path.stem)  # before a file of the wrong name is made
            if not create:
                raise SchemaError(f"{path} is not there yet; {self.again('up')} makes it", operation="schema")
        async with schema_connection(self.url, create=create) as connection:
            if self.environment is not None:
                await self.environment.check_database(connection)
            yield connection

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Reader]:
        """As `connect`, to read only: an SQLite database that is not there yet is an empty one, and is not made."""
        path = self.absent
        if path is None:
            async with self.connect() as connection:
                yield connection
            return
        if self.environment is not None:
            self.environment.check_name(path.stem)
        yield _Absent(address=f"sqlite:{path.absolute()}")

    def how_to_apply(self) -> str:
        """What to do about pending files."""
        path = self.absent
        if path is not None:
            return f"{path} is not there yet; {self.again('up')} makes it"
        return f"run {self.again('up')}"

    def again(self, command: str) -> str:
        """The command line for the same target. A URL with a password is left to be filled in."""
        from dal.urls import mask_url

        words = ["dal", "schema", command]
        of_environment = None if self.environment is None else self.environment.directory
        if self.environment is not None:
            words += ["--env", self.environment.name]
        if self.directory is not None and self.directory != of_environment:
            words += ["--dir", str(self.directory)]
        line = shlex.join(words)
        if self.environment is not None or self.url is None:
            return f"`{line}`"
        if mask_url(self.url) != self.url:
            return f"`{line} --url` with the same URL"
        return f"`{line} --url {shlex.quote(self.url)}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Absent:
    """A database without anything in it."""

    address: str
    engine: EngineName = "sqlite"

    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:  # noqa: ARG002
        return ()


def target(url: str | None, env: str | None, directory: Path | None) -> Target:
    """What the options name.

    Raises  InvalidInputError: two databases.  ConfigurationError: the environment is not known, or its address not set.
    """
    if env is None:
        return Target(url=url, directory=directory)
    if url is not None:
        raise InvalidInputError("--url and --env both name a database; give one of them")
    from dal.schema.deploying.environments import load_environments

    environment = load_environments(Path.cwd()).environment(env)
    return Target(
        url=environment.url.get_secret_value(),
        directory=environment.directory if directory is None else directory,
        environment=environment,
    )


def check_names(migrations: MigrationSet, *names: str | None) -> None:
    """Raises InvalidInputError: one of them is no file of the set."""
    known = [migration.name for migration in migrations.migrations]
    for name in names:
        if name is not None and name not in known:
            raise InvalidInputError(
                f"{migrations.directory}: there is no {name}; there are: {', '.join(known) or 'no migrations'}"
            )
