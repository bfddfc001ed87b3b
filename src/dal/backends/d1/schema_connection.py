"""A D1 database as the schema engine sees it: a batch for each migration, and nothing kept between two calls.

D1 checks foreign keys always; the most that can be had is that they are checked at the end of the batch. It says what
is wrong with a batch and not with which statement: that is found out by trying beginnings of it, none of which stays.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import orjson

from dal.backends.d1.errors import (
    BACKEND,
    STATEMENT_ERROR,
    Failure,
    broken_constraint,
    error_of,
    meaning_of,
)
from dal.backends.d1.executor import D1Executor, Tries
from dal.backends.d1.foreign_keys import refuse_lost_children
from dal.backends.d1.transport import D1Address, D1Transport
from dal.backends.d1.wire import Entry, body_of, plain
from dal.errors import DalError, SchemaError, UnavailableError
from dal.limits import SCRATCH_LIFETIME_S
from dal.schema.connection import EngineName, Place, Reader, Run, StatementError

_DEFERRED: Final = Entry("PRAGMA defer_foreign_keys = on", ())
#: A statement that always fails, and by what it is known.
_STOP: Final = Entry("SELECT json('dal')", ())
_STOPPED: Final = "malformed JSON"
_SCRATCH: Final = "dal-scratch-"


@asynccontextmanager
async def open_schema(address: D1Address, token: str) -> AsyncIterator[D1SchemaConnection]:
    """The database at this address, for `dal.schema`, until the block ends.

    Raises ConfigurationError: the token or the address is refused.  UnavailableError: no answer.
    """
    transport = D1Transport(address, token)
    await transport.open()
    try:
        connection = D1SchemaConnection(transport, address, token)
        await connection.fetch("SELECT 1")
        yield connection
    finally:
        await transport.close()


class D1SchemaConnection:
    """One D1 database to be migrated, as `dal.schema.connection` promises."""

    def __init__(self, transport: D1Transport, address: D1Address, token: str) -> None:
        self._transport = transport
        self._address = address
        self._token = token
        self._reader = D1Executor(transport, address.label)

    def __repr__(self) -> str:
        return f"D1SchemaConnection({self.address!r})"

    @property
    def engine(self) -> EngineName:
        return "sqlite"

    @property
    def place(self) -> Place:
        return "d1"

    @property
    def address(self) -> str:
        return self._address.label

    @property
    def backup_suffix(self) -> str:
        return ".db"

    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        try:
            return (await self._reader.read([plain(sql, params)]))[0]
        except DalError as error:
            failure = error.__cause__
            if isinstance(failure, Failure) and _is_refusal(failure):
                raise SchemaError(f"{self.address}: {_words(failure)}", operation="read", backend=BACKEND) from failure
            raise

    async def explain(self, sql: str) -> Sequence[tuple[object, ...]]:
        return await self.fetch(f"EXPLAIN QUERY PLAN {sql}")

    async def run(self, statements: Sequence[Run], *, foreign_keys: bool = True) -> None:
        if not statements:
            return
        entries = [plain(sql, params) for sql, params in statements]
        if not foreign_keys:
            await refuse_lost_children(self, [sql for sql, _ in statements])
            entries.insert(0, _DEFERRED)
        await self._send(entries, before=len(entries) - len(statements))

    async def run_alone(self, sql: str) -> None:
        await self._send([plain(sql, ())], before=0)

    async def try_exclusive(self) -> bool:
        return True

    async def end_exclusive(self) -> None:
        return

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[D1SchemaConnection]:
        """A database of the same account. Those of runs that were killed are dropped on this occasion."""
        await self._drop_old_scratch()
        name = f"{_SCRATCH}{int(time.time())}-{secrets.token_hex(6)}"
        made = await self._call("POST", self._address.databases, {"name": name}, "no scratch database could be made")
        address = self._address._replace(database=str(made["uuid"]))
        try:
            async with open_schema(address, self._token) as connection:
                yield connection
        finally:
            await self._call("DELETE", address.url, None, f"the scratch database {name} could not be dropped")

    async def dump(self, path: Path, *, look: Callable[[Reader], Awaitable[None]] | None = None) -> None:
        from dal.backends.d1.dump import dump

        await dump(self, path, look=look)

    async def load(self, path: Path) -> None:
        from dal.backends.d1.dump import load

        await load(self, path)

    async def database_name(self) -> str:
        """The name that its administrators gave it; its address holds an id only."""
        found = await self._call("GET", self._address.url, None, f"{self.address}: its name is not told")
        return str(found["name"])

    async def bookmark(self) -> str | None:
        """Time Travel's name for the present state, to which Cloudflare can restore for 30 days; None where the API
        offers none."""
        try:
            found = await self._transport.call("GET", f"{self._address.url}/time_travel/bookmark")
        except Failure:
            return None
        bookmark = found.get("bookmark") if isinstance(found, dict) else None
        return bookmark if isinstance(bookmark, str) and bookmark else None

    # Sending ---------------------------------------------------------------------------------------------------------

    async def read(self, entries: Sequence[Entry]) -> list[list[tuple[object, ...]]]:
        """The rows of several entries that only read, as of one moment."""
        return await self._reader.read(entries)

    async def _send(self, entries: list[Entry], *, before: int) -> None:
        """Carries the entries out, and again only where nothing can have come of the last try."""
        tries = Tries("schema", self.address)
        while True:
            try:
                await self._transport.query(body_of(entries), len(entries))
                return
            except Failure as failure:
                meaning = meaning_of(failure)
                if _is_refusal(failure):
                    raise await self._refusal(failure, entries, before) from failure
                if meaning.outcome == "unknown":
                    raise error_of(failure, "schema", self.address, writes=True) from failure
                await tries.another(failure)

    async def _refusal(self, failure: Failure, entries: list[Entry], before: int) -> StatementError:
        broken = broken_constraint(failure)
        place = await self._place_of_failure(failure, entries)
        index = None if place is None or place < before else place - before
        kind = "unique" if broken is not None and broken.kind == "unique" else "other"
        position = _words(failure).rpartition(" at offset ")[2]
        code = failure.text.partition(": SQLITE_")[2]
        return StatementError(
            index,
            _words(failure),
            code=f"SQLITE_{code.partition(' ')[0]}" if code else "",
            kind="unique" if kind == "unique" else "other",
            position=int(position) if position.isdecimal() else None,
        )

    async def _place_of_failure(self, failure: Failure, entries: list[Entry]) -> int | None:
        """Which entry fails; None where all of them together do, as when a foreign key is checked at the end."""
        good, bad = 0, len(entries)
        if len(entries) > 1 and await self._runs(entries):
            return None
        while bad - good > 1:
            middle = (good + bad) // 2
            if await self._runs(entries[:middle]):
                good = middle
            else:
                bad = middle
        return good if failure.text else None

    async def _runs(self, entries: Sequence[Entry]) -> bool:
        """Whether all of these can be run one after another. What they did is undone by the statement behind them."""
        attempt = [*entries, _STOP]
        tries = Tries("schema", self.address)
        while True:
            try:
                await self._transport.query(body_of(attempt), len(attempt))
            except Failure as failure:
                if failure.status == HTTPStatus.BAD_REQUEST:
                    return _STOPPED in failure.text
                await tries.another(failure)
            else:
                raise DalError(f"{self.address}: D1 ran a statement that always fails", backend=BACKEND)

    async def _call(self, method: str, url: str, body: object, trouble: str) -> Any:
        try:
            return await self._transport.call(method, url, None if body is None else orjson.dumps(body))
        except Failure as failure:
            words = error_of(failure, "schema", self.address, writes=False).message
            raise SchemaError(f"{trouble}: {words}; the token needs the right to edit D1", backend=BACKEND) from failure

    async def _drop_old_scratch(self) -> None:
        with suppress(Failure):
            for found in await self._transport.call("GET", f"{self._address.databases}?per_page=1000"):
                made_at = str(found.get("name", "")).removeprefix(_SCRATCH).partition("-")[0]
                is_ours = str(found.get("name", "")).startswith(_SCRATCH) and made_at.isdecimal()
                if is_ours and int(made_at) < time.time() - SCRATCH_LIFETIME_S:
                    url = self._address._replace(database=str(found["uuid"])).url
                    await self._transport.call("DELETE", url)


def _is_refusal(failure: Failure) -> bool:
    """Whether a statement is to blame, and not D1 or the way to it."""
    if broken_constraint(failure) is not None:
        return True
    is_answer = failure.status == HTTPStatus.BAD_REQUEST and failure.code == STATEMENT_ERROR
    return is_answer and not issubclass(meaning_of(failure).error, UnavailableError)


def _words(failure: Failure) -> str:
    """What D1 said, on one line, without its name for the error."""
    return " ".join(failure.text.partition(": SQLITE_")[0].split())
