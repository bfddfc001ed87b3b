"""Scratch databases: where migrations are tried before they touch anything.

A scratch database is made from template0 with the encoding and collation of the real one, and dropped when the block
ends. Where the role may not make databases (or may not connect to one), a schema of the same database stands in; its
connection refuses every statement that could reach beyond that schema, because the files were written for `public`.
Names carry the server's time: what a killed run left is removed by a later one.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

from psycopg import sql

from dal.backends.postgresql.errors import BACKEND
from dal.backends.postgresql.guard import Guard
from dal.backends.postgresql.schema_connection import PostgresSchemaConnection, connect
from dal.errors import ConfigurationError, DalError, SchemaError
from dal.limits import SCRATCH_LIFETIME_S
from dal.schema.connection import StatementError

_LOG: Final = logging.getLogger("dal.postgresql")

_PREFIX: Final = "dal_scratch_"
_NAMED: Final = f"^{_PREFIX}[0-9]+_[0-9a-f]+$"
_DENIED: Final = "42501"

_OLD: Final = """
    name ~ %s AND split_part(name, '_', 3)::numeric < extract(epoch FROM now()) - %s
    AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname::text = name OR a.application_name = name)
"""
_OLD_DATABASES: Final = "SELECT name FROM (SELECT datname::text AS name FROM pg_database) AS d WHERE" + _OLD  # noqa: S608  # constants
_OLD_SCHEMAS: Final = "SELECT name FROM (SELECT nspname::text AS name FROM pg_namespace) AS n WHERE" + _OLD  # noqa: S608
_HOME: Final = """
    SELECT coalesce((SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.oid = to_regclass('dal_migrations')), current_schema())::text,
           (SELECT reset_val FROM pg_settings WHERE name = 'search_path'), extract(epoch FROM now())::bigint::text
"""
_KIND: Final = """
    SELECT pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text, to_jsonb(d) ->> 'datlocprovider',
           coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'), to_jsonb(d) ->> 'daticurules'
    FROM pg_database d WHERE datname = current_database()
"""


@asynccontextmanager
async def scratch(parent: PostgresSchemaConnection) -> AsyncIterator[PostgresSchemaConnection]:
    """An empty database beside that of `parent`; see the module. Raises SchemaError, naming the missing privilege."""
    parent.require_direct("make a scratch database")
    await _sweep(parent)
    ((home, search_path, now),) = await parent.fetch(_HOME)
    name = f"{_PREFIX}{now}_{secrets.token_hex(6)}"
    try:
        opened = await _database(parent, name, str(home or "public"), str(search_path or ""))
        if opened is None:
            await _drop(parent, "DATABASE IF EXISTS {} WITH (FORCE)", name)
            opened = await _schema(parent, name)
        try:
            yield opened
        finally:
            await opened.close()
    finally:
        # A task of its own: whoever cancels the run a second time does not stop it from being tidied up.
        await asyncio.shield(asyncio.ensure_future(_remove(parent, name)))


async def _database(
    parent: PostgresSchemaConnection, name: str, home: str, search_path: str
) -> PostgresSchemaConnection | None:
    """None where the role may not make a database, or may not connect to it."""
    try:
        await parent.command(await _creation(parent, name))
    except StatementError as error:
        if error.code == _DENIED:
            return None
        raise SchemaError(
            f"{parent.address}: a scratch database cannot be made: {error.reason}", operation="schema", backend=BACKEND
        ) from error
    path = re.sub(r"([\\\s])", r"\\\1", search_path)
    address = parent.neighbour(dbname=name, options=f"-c search_path={path}", application_name=name)
    try:
        opened = await connect(address)
    except ConfigurationError:
        return None
    if home != "public":
        try:
            await opened.run([(_text(parent, "CREATE SCHEMA IF NOT EXISTS {}", home), ())])
        except BaseException:
            await opened.close()
            raise
    return opened


async def _creation(parent: PostgresSchemaConnection, name: str) -> str:
    ((encoding, collate, ctype, provider, locale, rules),) = await parent.fetch(_KIND)
    text = _text(parent, "CREATE DATABASE {} TEMPLATE template0 ENCODING ", name)
    text += _literal(parent, encoding) + f" LC_COLLATE {_literal(parent, collate)} LC_CTYPE {_literal(parent, ctype)}"
    if provider == "i":
        text += f" LOCALE_PROVIDER icu ICU_LOCALE {_literal(parent, locale)}"
        text += f" ICU_RULES {_literal(parent, rules)}" if rules else ""
    elif provider == "b":
        text += f" LOCALE_PROVIDER builtin BUILTIN_LOCALE {_literal(parent, locale)}"
    return text


async def _schema(parent: PostgresSchemaConnection, name: str) -> PostgresSchemaConnection:
    try:
        await parent.command(_text(parent, "CREATE SCHEMA {}", name))
    except StatementError as error:
        what = (
            "the role has neither CREATEDB nor CREATE on this database; give it one of them"
            if error.code == _DENIED
            else error.reason
        )
        raise SchemaError(
            f"{parent.address}: nothing to try migrations on: {what}", operation="schema", backend=BACKEND
        ) from error
    others = await parent.fetch(
        "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', %s)",
        (name,),
    )
    _LOG.warning("%s: no scratch database may be made; migrations are tried in a schema of it", parent.address)
    guard = Guard([str(row[0]) for row in others])
    # Behind the caller's options: whatever search_path they set, this one holds.
    opened = await connect(parent.neighbour(options=f"-c search_path={name}", application_name=name), guard=guard)
    try:
        if await opened.fetch("SELECT current_schemas(false)::text") != [(f"{{{name}}}",)]:
            raise SchemaError(f"{parent.address}: search_path cannot be set", operation="schema", backend=BACKEND)
    except BaseException:
        await opened.close()
        raise
    return opened


async def _sweep(parent: PostgresSchemaConnection) -> None:
    """Removes what killed runs left, as far as this role may."""
    for query, statement in (
        (_OLD_DATABASES, "DATABASE IF EXISTS {}"),
        (_OLD_SCHEMAS, "SCHEMA IF EXISTS {} CASCADE"),
    ):
        for (name,) in await parent.fetch(query, (_NAMED, int(SCRATCH_LIFETIME_S))):
            with suppress(StatementError):
                await parent.command(_text(parent, f"DROP {statement}", str(name)))


async def _remove(parent: PostgresSchemaConnection, name: str) -> None:
    await _drop(parent, "SCHEMA IF EXISTS {} CASCADE", name)
    await _drop(parent, "DATABASE IF EXISTS {} WITH (FORCE)", name)


async def _drop(parent: PostgresSchemaConnection, statement: str, name: str) -> None:
    with suppress(StatementError, DalError):  # a later run removes it
        await parent.command(_text(parent, f"DROP {statement}", name))


def _text(parent: PostgresSchemaConnection, statement: str, name: str) -> str:
    return sql.SQL(cast("Any", statement)).format(sql.Identifier(name)).as_string(parent.driver)


def _literal(parent: PostgresSchemaConnection, value: object) -> str:
    return sql.Literal(str(value)).as_string(parent.driver)
