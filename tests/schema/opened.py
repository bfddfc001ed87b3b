"""A database for the schema engine, and statements on it by its driver, as another program would run them."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractAsyncContextManager, closing

import psycopg

from dal.factory import schema_connection
from dal.schema import Connection
from dal.urls import parse_url


def opened(url: str) -> AbstractAsyncContextManager[Connection]:
    return schema_connection(url, create=True)


def execute(url: str, *statements: str) -> None:
    """Runs each statement and commits it."""
    place = parse_url(url)
    if place.path is None:
        with psycopg.connect(url, autocommit=True) as server:
            for statement in statements:
                server.execute(statement.encode())
    else:
        with closing(sqlite3.connect(place.path, isolation_level=None)) as file:
            for statement in statements:
                file.execute(statement)


def rows(url: str, sql: str) -> list[tuple[object, ...]]:
    place = parse_url(url)
    if place.path is None:
        with psycopg.connect(url, autocommit=True) as server:
            return server.execute(sql.encode()).fetchall()
    with closing(sqlite3.connect(place.path)) as file:
        return file.execute(sql).fetchall()
