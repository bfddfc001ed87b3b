"""Live moves: what one costs a writer, how fast it copies and checks, and how long a cutover holds writers up."""

from __future__ import annotations

import shutil
import sqlite3
from functools import cached_property
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from dal import create_data_access
from dal.importing import import_file
from tests.bench import paths
from tests.bench.measure import Side
from tests.bench.moves import Backfill, CheckByHand, Checking, CopyByHand, Moving, Pair, Stall, Work, work
from tests.bench.paths import Against, Row
from tests.bench.stage import Stage, fill_sql
from tests.bench.subject import Ours, Subject
from tests.bench.targets import Measure, Target
from tests.engines import postgres

_SLOWDOWN: Final = Target(Measure.SLOWDOWN, 1.25)
_CONTROL: Final = Target(Measure.SLOWDOWN)
#: Of what takes seconds: enough for four of five to agree.
_ROUNDS: Final = 5
#: Imported files that a backfill copies: with one of them, beginning and ending a move is a quarter of it.
BACKFILL_FILES: Final = 3


def _append(engine: str, name: str) -> Row:
    still = f"{engine}, no move"
    title = {"SQLite": "a SQLite source", "PostgreSQL": "a PostgreSQL source"}[engine]
    return Row(
        f"append, 1 task, {title}, {name}",
        paths.append(1),
        (Against(still, (_SLOWDOWN,)),),
        who=f"{engine}, {name}",
        writes=True,
    )


def _backfill(engine: str, by_hand: str, *targets: Target) -> Row:
    return Row(
        f"backfill, {BACKFILL_FILES} × {{bulk_messages:,}} messages, SQLite to {engine}",
        work,
        (Against(f"{by_hand} to {engine}", targets),),
        who=f"backfill to {engine}",
        writes=True,
        calls=1,
        rounds=_ROUNDS,
        bulk=True,
    )


def _check(engine: str, mode: str, rate: float) -> Row:
    return Row(
        f"check, {mode}, SQLite and {engine}",
        work,
        (Against(f"by hand {engine}", (Target(Measure.RATE, rate),)),),
        who=f"{mode} {engine}",
        calls=1,
        rounds=_ROUNDS,
    )


def _cutover(source: str, target: str, bound_ms: float) -> Row:
    name = f"{source} and {target}"
    return Row(
        f"longest append of 8 writers, cutover between {name}",
        work,
        (Against(f"no cutover {name}", (Target(Measure.P99_MS, bound_ms),)),),
        who=f"cutover {name}",
        calls=1,
        rounds=_ROUNDS,
    )


class MovesStage(Stage):
    """Every subject has stores of its own, copies of one SQLite file that the library filled."""

    backend = "moves"
    rows = (
        *[
            row
            for engine in ("SQLite", "PostgreSQL")
            for row in (
                Row(
                    f"control: append, 1 task, {engine}",
                    paths.append(1),
                    (Against(f"{engine}, no move, twin", (_CONTROL,)),),
                    who=f"{engine}, no move",
                    writes=True,
                ),
                _append(engine, "move installed"),
                _append(engine, "pushing"),
            )
        ],
        _backfill("PostgreSQL", "COPY", Target(Measure.RATE, 30_000), Target(Measure.THROUGHPUT, 0.5)),
        _backfill("SQLite", "executemany", Target(Measure.THROUGHPUT)),
        *[
            _check(engine, mode, rate)
            for engine in ("PostgreSQL", "SQLite")
            for mode, rate in (("quick", 1_000_000), ("deep", 100_000))
        ],
        _cutover("SQLite", "PostgreSQL", 100),
        _cutover("SQLite", "SQLite", 100),
        _cutover("files", "SQLite", 3_000),
    )

    async def set_up(self) -> None:
        self._made = 0
        self._models: dict[tuple[str, bool], str] = {}
        self._bulk_source: Path | None = None
        self._checked: dict[str, Pair] = {}
        self._copied: set[Pair] = set()

    async def sides(self, row: Row) -> list[Side]:
        sides = await super().sides(row)
        for side, name in zip(sides, (row.who, *(against.subject for against in row.against)), strict=True):
            subject = await self.subject(name)
            if isinstance(subject, Work):
                side.per_call, side.tells = subject.handles, subject.tells
        return sides

    async def make(self, name: str) -> Subject:
        engine = "PostgreSQL" if name.startswith("PostgreSQL") or name.endswith("PostgreSQL") else "SQLite"
        match name.split(" ")[0].rstrip(","):
            case "SQLite" | "PostgreSQL":
                source = await self._filled_at(engine)
                if "no move" in name:
                    return Ours(create_data_access(source, auto_migrate=False), name)
                return Moving(name, (source, await self._empty(engine)), pushing="pushing" in name)
            case "backfill":
                return Backfill(await self._bulk_pairs(engine), BACKFILL_FILES * self.data.scale.bulk_messages)
            case "COPY" | "executemany" as how:
                pairs = await self._bulk_pairs(engine)
                return CopyByHand(f"read with sqlite3, {how}", pairs, BACKFILL_FILES * self.data.scale.bulk_messages)
            case "quick" | "deep" as mode:
                return Checking(await self._checked_pair(engine), mode, self._copied)
            case "by":
                return CheckByHand(await self._checked_pair(engine))
            case _:
                source = await self._filled_at("files" if "files" in name else "SQLite")
                pair = (source, await self._empty(engine))
                return Stall(pair, self.data, switching=name.startswith("cutover"))

    # Stores ----------------------------------------------------------------------------------------------------------

    async def _filled_at(self, engine: str) -> str:
        """A store with the data in it."""
        if engine == "files":
            url = f"file:{self._path('files')}"
            async with create_data_access(url) as dal:
                await self.data.fill(dal)
            return url
        return await self._copy(engine, filled=True)

    async def _empty(self, engine: str) -> str:
        """A store with the schema and no row."""
        return await self._copy(engine, filled=False)

    async def _copy(self, engine: str, *, filled: bool) -> str:
        model = await self._model(engine, filled=filled)
        if engine == "SQLite":
            return f"sqlite:{shutil.copy(model.removeprefix('sqlite:'), self._path('copy.db'))}"
        url = self._server.create_database("dal_bench")
        new, old = (sql.Identifier(u.rsplit("/", 1)[1].split("?")[0]) for u in (url, model))
        with psycopg.connect(self._server.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {}").format(new))
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(new, old))
        return url

    async def _model(self, engine: str, *, filled: bool) -> str:
        """What is copied for each subject, made when it is first asked for."""
        if (engine, filled) not in self._models:
            name = f"model-{'filled' if filled else 'empty'}.db"
            url = f"sqlite:{self.directory / name}"
            if engine == "PostgreSQL":
                url = self._server.create_database("dal_bench")
            await fill_sql(url, self.data, search=False, rows=filled)
            if engine == "PostgreSQL":
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute("VACUUM ANALYZE")
            else:
                _settle(self.directory / name)
            self._models[engine, filled] = url
        return self._models[engine, filled]

    async def _bulk_pairs(self, engine: str) -> list[Pair]:
        """A pair for each call: a source with the messages of imported files, and an empty target."""
        if self._bulk_source is None:
            self._bulk_source = Path((await self._empty("SQLite")).removeprefix("sqlite:"))
            async with create_data_access(f"sqlite:{self._bulk_source}", auto_migrate=False) as dal:
                for file in self.data.bulk_files[:BACKFILL_FILES]:
                    await import_file(dal, file)
            _settle(self._bulk_source)
        sources = [shutil.copy(self._bulk_source, self._path("source.db")) for _ in self.data.bulk_files[: _ROUNDS + 1]]
        return [(f"sqlite:{source}", await self._empty(engine)) for source in sources]

    async def _checked_pair(self, engine: str) -> Pair:
        """The one pair that is compared in every way."""
        if engine not in self._checked:
            self._checked[engine] = (await self._filled_at("SQLite"), await self._empty(engine))
        return self._checked[engine]

    def _path(self, name: str) -> Path:
        self._made += 1
        return self.directory / f"{self._made}-{name}"

    @cached_property
    def _server(self) -> postgres.PostgresServer:
        server = postgres.obtain(durable=True)
        self.stack.callback(server.close)
        with psycopg.connect(server.url()) as connection:
            found = connection.execute(
                "SELECT current_setting('server_version'), current_setting('fsync'), "
                "current_setting('synchronous_commit'), current_setting('shared_buffers')"
            ).fetchone()
        assert found is not None
        self.engine = "PostgreSQL {}; fsync {}, synchronous_commit {}, shared_buffers {}".format(*found)
        return server


def _settle(path: Path) -> None:
    """Leaves everything in the one file."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("ANALYZE")
    connection.close()
