"""Programs of others that write to a store past the library: what they speak, and what they make of an answer."""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import psycopg

from tests.rows import sql_literal


class RefusedError(Exception):
    """The store said no, or could not be asked; nothing was written. The first argument is the kind."""


class LostError(Exception):
    """The answer was lost: it may have been written or not."""


class SqlProgram(ABC):
    """Runs statements as one transaction."""

    #: How an upsert is written that replaces whatever row holds the key; empty where there is none.
    replace = ""
    #: The engine knows true and false.
    has_booleans = False

    @abstractmethod
    def run(self, *statements: str) -> int:
        """How many rows the last statement changed. Raises RefusedError, LostError."""

    def insert(self, table: str, row: Mapping[str, object], *, verb: str = "INSERT") -> str:
        return f"{verb} INTO {table} ({', '.join(row)}) VALUES ({', '.join(map(self.literal, row.values()))})"

    def literal(self, value: object) -> str:
        return sql_literal(value, has_booleans=self.has_booleans)

    def close(self) -> None:  # noqa: B027  # most have nothing to let go of
        pass


class SqliteProgram(SqlProgram):
    """Another program with a connection of its own for each transaction."""

    replace = "INSERT OR REPLACE"

    def __init__(self, path: Path) -> None:
        self._path = path

    def run(self, *statements: str) -> int:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=1)
        at_commit = False
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("BEGIN IMMEDIATE")
            count = 0
            for statement in statements:
                count = connection.execute(statement).rowcount
            at_commit = True
            connection.execute("COMMIT")
            return count
        except sqlite3.Error as error:
            if at_commit and "locked" not in str(error):
                raise LostError(str(error)) from error
            raise _refused(error) from error
        finally:
            connection.close()


class PostgresProgram(SqlProgram):
    """Another program with one connection, made again when it breaks."""

    has_booleans = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None

    def run(self, *statements: str) -> int:
        at_commit = False
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._url, connect_timeout=2)
                self._connection.execute("SET lock_timeout = '5s'; SET statement_timeout = '10s'")
                self._connection.commit()
            count = 0
            for statement in statements:
                count = self._connection.execute(statement.encode()).rowcount
            at_commit = True
            self._connection.commit()
            return count
        except psycopg.Error as error:
            self.close()
            if at_commit and (error.sqlstate is None or error.sqlstate.startswith("57")):
                raise LostError(str(error)) from error
            raise _refused(error) from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class D1Program(SqlProgram):
    """Another program on D1's REST API."""

    replace = "INSERT OR REPLACE"

    def __init__(self, base: str, account: str, token: str, database: str) -> None:
        self._url = f"{base}/accounts/{account}/d1/database/{database}/query"
        self._client = httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=10)

    def run(self, *statements: str) -> int:
        try:
            batch = {"batch": [{"sql": sql, "params": []} for sql in statements]}
            answer = self._client.post(self._url, json=batch)
        except httpx.ConnectError as error:
            raise _refused(error) from error
        except httpx.HTTPError as error:
            raise LostError(str(error)) from error
        try:
            found = answer.json()
        except json.JSONDecodeError as error:
            raise LostError(answer.text[:100]) from error
        if not found["success"]:
            raise _refused(RuntimeError(str(found["errors"])))
        return int(found["result"][-1]["meta"]["changes"])

    def close(self) -> None:
        self._client.close()


def _refused(error: Exception) -> RefusedError:
    message = str(error)
    kind = "fenced" if "fenced" in message or "live move" in message else type(error).__name__
    return RefusedError(kind, message)


def statements_of_a_message(program: SqlProgram, chat_id: str, row: Mapping[str, object]) -> Sequence[str]:
    """What gives the message its number and writes it."""
    key, at = program.literal(chat_id), program.literal(row["created_at"])
    names = ", ".join((*row, "chat_session_id", "sequence_number"))
    values = ", ".join(map(program.literal, row.values()))
    return (
        "UPDATE chat_sessions SET message_count = message_count + 1, version = version + 1, "
        f"last_message_at = {at}, last_activity_at = {at}, updated_at = {at} WHERE chat_id = {key}",
        f"INSERT INTO messages ({names}) SELECT {values}, id, message_count FROM chat_sessions WHERE chat_id = {key}",
    )
