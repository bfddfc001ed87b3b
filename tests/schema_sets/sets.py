"""The migration sets, what each of them must give, and a look at a database that owes nothing to the engine."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest

from dal.schema.connection import EngineName

HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class SchemaSet:
    """A directory of migrations and its `expected.json`.

    of  the set whose files these are, numbered anew: `copy` makes them.
    """

    name: str
    of: SchemaSet | None = None

    @property
    def directory(self) -> Path:
        return HERE / self.name

    @cached_property
    def expected(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "expected.json").read_text())
        return found

    @property
    def engine(self) -> EngineName:
        return "sqlite" if self.expected["dialect"] == "sqlite" else "postgresql"

    @property
    def files(self) -> list[str]:
        """In the order in which they are applied."""
        return list(self.expected["files"])

    def names(self) -> Names:
        """Everything that is there once every file is applied."""
        expected = self.expected
        return Names(
            tables=expected["tables"],
            indexes=expected["indexes"],
            views=expected["views"],
            triggers=expected["triggers"],
            enums=expected.get("enums", {}),
            functions=["touch_updated_at"] if self.name == "citadel" else [],
        )

    def copy(self, to: Path) -> Path:
        """A copy that a test may change, under the same name: the name tells sets apart in the ledger."""
        if self.of is None:
            return Path(shutil.copytree(self.directory, to / self.name))
        made = to / self.name
        (made / "rollback").mkdir(parents=True)
        for file in self.files:
            (original,) = (name for name in self.of.files if name[5:] == file[5:])
            for place in (Path(), Path("rollback")):
                shutil.copy(self.of.directory / place / original, made / place / file)
        return made


CUTTY: Final = SchemaSet("cutty")
PATTERNS: Final = SchemaSet("patterns")
CITADEL: Final = SchemaSet("citadel")
CITADEL_BAD_ORDER: Final = SchemaSet("citadel_bad_order", of=CITADEL)
SETS: Final = (CUTTY, PATTERNS, CITADEL)
#: Each set on each engine that it is written for.
PLACES: Final = (
    pytest.param(CUTTY, "sqlite", id="cutty-sqlite"),
    pytest.param(CUTTY, "d1", id="cutty-d1"),
    pytest.param(PATTERNS, "sqlite", id="patterns-sqlite"),
    pytest.param(PATTERNS, "d1", id="patterns-d1"),
    pytest.param(CITADEL, "postgresql", id="citadel-postgresql"),
)


@dataclass
class Names:
    """The names in a database; those of the engine and of the ledger's tables are left out."""

    tables: dict[str, list[str]] = field(default_factory=dict)
    indexes: list[str] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    triggers: list[str] = field(default_factory=list)
    enums: dict[str, list[str]] = field(default_factory=dict)
    functions: list[str] = field(default_factory=list)


NOTHING: Final = Names()


def names_in(url: str) -> Names:
    """What a database holds now, asked with the engine's own driver."""
    return _on_postgresql(url) if url.startswith("postgresql:") else _on_sqlite(url)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """What a query answers, asked with the engine's own driver, or D1's own API."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite://"))) as database:
            return database.execute(query).fetchall()
    if url.startswith("d1:"):
        return _from_d1(url, query)
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def ledger(url: str) -> list[str]:
    """The names in the ledger, in the order of their application."""
    table = "dal_migrations" if url.startswith("postgresql:") else "d1_migrations"
    return [name for (name,) in rows(url, f"SELECT name FROM {table} ORDER BY id")]


def _from_d1(url: str, query: str) -> list[tuple[Any, ...]]:
    account, database = url.removeprefix("d1://").split("/")
    answer = httpx.post(
        f"{os.environ['D1_API_BASE']}/accounts/{account}/d1/database/{database}/raw",
        json={"sql": query},
        headers={"authorization": f"Bearer {os.environ['D1_API_TOKEN']}"},
    ).json()
    assert answer["success"], answer["errors"]
    return [tuple(row) for row in answer["result"][0]["results"]["rows"]]


def _on_sqlite(url: str) -> Names:
    def named(kind: str) -> list[str]:
        found = rows(url, f"SELECT name FROM sqlite_master WHERE type = '{kind}' AND sql IS NOT NULL ORDER BY name")
        names = [name for (name,) in found]
        return [n for n in names if not n.startswith(("sqlite_", "_cf_", "dal_migration", "d1_migrations"))]

    return Names(
        tables={
            name: [column for (column,) in rows(url, f"SELECT name FROM pragma_table_info('{name}') ORDER BY cid")]
            for name in named("table")
        },
        indexes=named("index"),
        views=named("view"),
        triggers=named("trigger"),
    )


def _on_postgresql(url: str) -> Names:
    tables: dict[str, list[str]] = {}
    columns = """SELECT table_name::text, column_name::text FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name NOT LIKE 'dal\\_migration%'
        ORDER BY table_name COLLATE "C", ordinal_position"""
    for table, column in rows(url, columns):
        tables.setdefault(table, []).append(column)

    def named(query: str) -> list[str]:
        return sorted(name for (name,) in rows(url, query))

    return Names(
        tables=tables,
        indexes=named(
            "SELECT indexname::text FROM pg_indexes "
            "WHERE schemaname = 'public' AND tablename NOT LIKE 'dal\\_migration%'"
        ),
        views=named("SELECT viewname::text FROM pg_views WHERE schemaname = 'public'"),
        triggers=named("SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal"),
        enums=dict(
            rows(
                url,
                "SELECT typname::text, array_agg(enumlabel::text ORDER BY enumsortorder) "
                "FROM pg_type JOIN pg_enum ON enumtypid = pg_type.oid GROUP BY typname",
            )
        ),
        functions=named("SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace"),
    )
