"""A way to D1 on which something is not as it should be, for the tests of the self-check. The engine is real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson

from dal.backends.d1.checks import CHECKS
from dal.backends.d1.errors import Failure
from dal.backends.d1.probe import SelfCheck, probe
from dal.backends.d1.transport import D1Address, D1Transport, Rows
from tests.d1.conftest import Place

Change = Callable[[str], str]
NAMES: Final = [check.name for check in CHECKS]
SCRATCH: Final = "dal\\_doctor\\_%' ESCAPE '\\"


class Bent(D1Transport):
    """A way to D1 on which something is not as it should be.

    sql      changes each statement before it is sent.
    rows     changes what each statement gave.
    refuses  texts of statements that are refused, each with what is said.
    is_split each statement of a batch goes by itself.
    """

    sql: Change = staticmethod(lambda sql: sql)
    rows: Callable[[str, Rows], Rows] = staticmethod(lambda _sql, rows: rows)
    refuses: Callable[[str], str | None] = staticmethod(lambda _sql: None)
    is_split = False

    async def query(self, body: bytes, count: int) -> list[Rows]:
        given = orjson.loads(body)
        entries: list[dict[str, Any]] = given.get("batch", [given])
        for entry in entries:
            text = self.refuses(entry["sql"])
            if text is not None:
                raise Failure(text, status=400, code=7500)
        sent = [{**entry, "sql": self.sql(entry["sql"])} for entry in entries]
        if self.is_split:
            found = [(await super(Bent, self).query(orjson.dumps(entry), 1))[0] for entry in sent]
        else:
            found = await super().query(orjson.dumps({"batch": sent}), count)
        return [self.rows(entry["sql"], rows) for entry, rows in zip(entries, found, strict=True)]


@asynccontextmanager
async def transport(place: Place, **bent: Any) -> AsyncIterator[Bent]:
    database = place.database
    made = Bent(D1Address(database.base, database.account, database.id), database.token)
    for name, value in bent.items():
        setattr(made, name, value)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def checked(place: Place, *, on: dict[str, Any] | None = None, **bent: Any) -> SelfCheck:
    async with transport(place, **bent) as made:
        return await probe(made, place.database.url, **(on or {}))


def failed(report: SelfCheck) -> dict[str, str]:
    return {check.check: check.found for check in report.checks if not check.ok}


def scratch_tables(place: Place) -> list[str]:
    rows = place.rows(f"SELECT name FROM sqlite_master WHERE tbl_name LIKE '{SCRATCH}' ORDER BY name")
    return [str(name) for (name,) in rows]
