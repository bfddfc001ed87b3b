"""`dal doctor`: what somebody who helps you would ask first, and on D1 a trial of what the library rests on."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.options import AsJson, Url
from dal.cli.output import console, print_json, table
from dal.cli.places import shown_place
from dal.cli.running import FAILED, complain, run

if TYPE_CHECKING:
    from dal.backends.d1 import SelfCheck
    from dal.config import Settings
    from dal.ops import JsonValue

_PACKAGES = (
    "dal",
    "aiosqlite",
    "filetype",
    "h2",
    "httpx",
    "obstore",
    "orjson",
    "psycopg",
    "psycopg-binary",
    "psycopg-pool",
    "pydantic",
    "pydantic-settings",
    "regex",
    "tenacity",
    "typer",
    "zstandard",
)


def doctor(
    url: Url = None,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Write nothing: do not try D1 and BLOB_URL out.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Check a store and show versions, settings (without secrets) and what this backend can do.

    On D1 it tries out what the library rests on, in a scratch table that it makes and removes; where BLOB_URL names a
    place, it stores a few bytes there and removes them. Nothing else is touched. Exits with 1 when something is not
    well, or a check fails.
    """

    async def work() -> int:
        from dataclasses import asdict

        from dal.cli.doctor_contents import contents
        from dal.config import Settings
        from dal.errors import DalError, SchemaError
        from dal.factory import create_data_access, self_check
        from dal.models import Health

        settings = Settings()
        rows_alone = settings.model_copy(update={"blob_url": None, "blob_fallback_url": None})
        data_access = create_data_access(url, settings=rows_alone, auto_migrate=False)
        failure: DalError | None = None
        try:
            async with data_access:
                health = await data_access.health()
        except DalError as error:
            failure = error
            health = Health(status="down", parts={"reachable": False, "problems": [error.message]})
        move = await _move(url, settings) if failure is None else ""
        tried: SelfCheck | None = None
        # A database that is reached can be tried, whatever its schema.
        if not no_probe and (failure is None or isinstance(failure, SchemaError)):
            tried = await self_check(url, settings=settings)
        blobs = await contents(settings, probe=not no_probe)
        capabilities = asdict(data_access.capabilities)
        place = shown_place(url, settings)
        if json:
            print_json(
                {
                    "store": place,
                    "health": health,
                    "move": move or None,
                    "self_check": None if tried is None else asdict(tried),
                    "contents": blobs,
                    "capabilities": capabilities,
                    "settings": _settings(settings),
                    "versions": _versions(),
                }
            )
        else:
            out = console()
            out.print(table(None, ("store", place), [("health", health.status), *_moving(move), *_parts(health.parts)]))
            if tried is not None:
                out.print(table(None, ("self-check", "", "found"), _tried(tried)))
            if blobs is not None:
                out.print(table(None, ("contents of files", ""), _parts(blobs)))
            out.print(table(None, ("can do", ""), capabilities.items()))
            out.print(table(None, ("setting", ""), _settings(settings).items()))
            out.print(table(None, ("version", ""), _versions().items()))
        if failure is not None:
            complain(f"{type(failure).__name__}: {failure.message}")
        if tried is not None:
            cost = f"{tried.requests:,} requests, {tried.rows_written:,} rows written, {tried.rows_read:,} rows read"
            complain(f"the self-check took {cost}")
        is_well = health.status == "ok" and (tried is None or tried.ok) and not (blobs and blobs["problems"])
        return 0 if is_well else FAILED

    run(work(), log_level=logging.WARNING)


async def _move(url: str | None, settings: Settings) -> str:
    """The live move that this store takes part in, in a line; empty where it is in none."""
    from dal.errors import DalError
    from dal.factory import create_store
    from dal.replica import Movable

    store = create_store(url, settings=settings, auto_migrate=False)
    if not isinstance(store, Movable):
        return ""
    try:
        await store.open()
        gates = (await store.replica().gates()).values()
    except DalError:
        return ""  # what is wrong with the store was told already
    finally:
        await store.close()
    if not gates:
        return ""
    side = next(iter(gates)).side
    units = ", ".join(f"{gate.unit} {gate.role} ({gate.phase})" for gate in gates)
    return f"this is the {side} of a live move: {units}"


def _moving(move: str) -> list[tuple[str, str]]:
    return [("move", move)] if move else []


def _parts(found: Mapping[str, JsonValue]) -> list[tuple[str, JsonValue]]:
    parts = dict(found)
    problems = parts.pop("problems", [])
    rows = list(parts.items())
    return rows + [("problem", problem) for problem in (problems if isinstance(problems, list) else [problems])]


def _tried(report: SelfCheck) -> list[tuple[str, str, str]]:
    return [(check.check, "ok" if check.ok else "FAILED", check.found) for check in report.checks]


def _settings(settings: Settings) -> dict[str, str | None]:
    """Every variable with its value, `***` for a secret that is set."""
    shown: dict[str, str | None] = {}
    for name, value in settings:
        secret = hasattr(value, "get_secret_value")
        shown[name.upper()] = "***" if secret else None if value is None else str(value)
    return shown


def _versions() -> dict[str, str]:
    import sqlite3

    versions = {"python": platform.python_version(), "platform": platform.platform(), "sqlite": sqlite3.sqlite_version}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
