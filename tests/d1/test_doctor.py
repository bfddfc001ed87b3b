"""`dal doctor` on D1: each check sees the property it is about break, and nothing but the scratch table is touched.

The database is the real engine; what is bent is the way to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from dal.backends.d1.probe import probe
from dal.backends.d1.transport import D1Address, Rows
from dal.backends.d1.worker import D1Worker, WorkerTransport
from dal.factory import self_check
from dal.limits import D1_MAX_CLOCK_OFF_S, DEGRADED_LATENCY_MS
from tests.d1.bent import NAMES, SCRATCH, Bent, Change, checked, failed, scratch_tables
from tests.d1.conftest import Place
from tests.engines.d1_worker import D1WorkerEngine


def contents(place: Place) -> dict[str, object]:
    """Everything that the database holds: every object's definition, and every row of every table."""
    found: dict[str, object] = {
        "": place.rows("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
    }
    for (name,) in place.rows(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_cf%' ESCAPE '\\'"
    ):
        found[str(name)] = place.rows(f'SELECT * FROM "{name}" ORDER BY 1')
    return found


# As it should be -----------------------------------------------------------------------------------------------------


async def test_every_property_holds_on_the_engine_and_nothing_else_is_touched(place: Place) -> None:
    place.rows("INSERT INTO users (id, created_at, updated_at) VALUES ('u', '2026', '2026') RETURNING id")
    place.rows("CREATE TABLE dal_doctor_notes (note TEXT)")
    before = contents(place)
    assert before["users"]
    report = await checked(place)
    assert failed(report) == {}
    assert [check.check for check in report.checks] == ["scratch table", *NAMES, "scratch table removed"]
    assert contents(place) == before
    assert 0 < report.rows_written < 200
    assert 0 < report.requests < 60


async def test_it_says_what_it_cost(place: Place) -> None:
    asked = place.engine.requests(place.database)
    report = await checked(place)
    assert report.requests == place.engine.requests(place.database) - asked


async def test_it_needs_no_schema(place: Place) -> None:
    place.engine.query(place.database, "CREATE TABLE theirs (a)", "INSERT INTO theirs VALUES (1)")
    empty = Place(place.engine, place.engine.create_database())
    assert failed(await checked(empty)) == {}
    assert empty.rows("SELECT name FROM sqlite_master WHERE name NOT LIKE '\\_cf%' ESCAPE '\\'") == []


async def test_a_worker_is_checked_through_its_own_binding(d1_worker_engine: D1WorkerEngine) -> None:
    report = await self_check(d1_worker_engine.store_url, settings=d1_worker_engine.settings)
    assert report is not None
    assert failed(report) == {}
    assert "newer" in next(check.found for check in report.checks if check.check == "bookmark")
    assert d1_worker_engine.query(f"SELECT name FROM sqlite_master WHERE name LIKE '{SCRATCH}'") == []


async def test_other_stores_need_no_trial() -> None:
    assert await self_check("memory://") is None


# Each property, broken -----------------------------------------------------------------------------------------------


def replaced(*pairs: tuple[str, str]) -> Change:
    def change(sql: str) -> str:
        for found, made in pairs:
            sql = sql.replace(found, made)
        return sql

    return change


def _without_keys(sql: str) -> str:
    return re.sub(r"id PRIMARY KEY, parent REFERENCES \w+ \(id\)", "id, parent", sql)


def swallowed(word: str) -> Change:
    return lambda sql: "SELECT 1" if word in sql else sql


def refusing(word: str, text: str) -> Callable[[str], str | None]:
    return lambda sql: text if word in sql else None


def _rounded(sql: str, rows: Rows) -> Rows:
    return [(str(int(float(str(row[0])))), row[1]) for row in rows] if "typeof(value)" in sql else rows


def _bound_as_text(sql: str, rows: Rows) -> Rows:
    return [("text",)] if sql == "SELECT typeof(?1)" else rows


def _always_burnt(sql: str, rows: Rows) -> Rows:
    return [("burnt",)] if sql.startswith("SELECT counts") else rows


def _one_short(sql: str, rows: Rows) -> Rows:
    return rows[1:] if "RETURNING id" in sql else rows


def _off(sql: str, rows: Rows, *, by_s: float = D1_MAX_CLOCK_OFF_S + 1) -> Rows:
    return [(float(str(rows[0][0])) + by_s,)] if "julianday" in sql else rows


def _many(what: str, number: int, text: str) -> Callable[[str], str | None]:
    """More of this than so many are refused."""
    return lambda sql: text if sql.count(what) > number else None


TOO_MANY: Final = "too many SQL variables: SQLITE_ERROR"
TOO_COMPOUND: Final = "too many terms in compound SELECT: SQLITE_ERROR"
TOO_LONG: Final = "statement too long: SQLITE_TOOBIG"
_SECOND: Final = "json_extract(?1, '$[1]')"
ODD: Final = "something else: SQLITE_MISUSE"


#: A check, what is bent, and what the check says.
BROKEN: Final[list[tuple[str, dict[str, Any], str]]] = [
    ("atomic batch", {"is_split": True}, "left 2 of its rows"),
    ("atomic batch", {"sql": _without_keys}, "was carried out"),
    ("guard", {"sql": replaced(("CHECK (ok = 1)", ""))}, "does not hold let its batch through"),
    ("guard", {"is_split": True}, "a row of it stayed"),
    ("guard", {"sql": replaced(("SELECT 0 WHERE NOT EXISTS", "SELECT 0 WHERE 1 OR EXISTS"))}, "a guard that holds"),
    ("batch id", {"sql": _without_keys}, "twice"),
    ("batch id", {"rows": _always_burnt}, "is not found by its id"),
    ("batch id", {"sql": lambda sql: "SELECT ?1" if "'burnt'" in sql else sql}, "after it had been given up"),
    ("triggers", {"sql": swallowed("CREATE TRIGGER")}, "did not fire"),
    ("triggers", {"refuses": refusing("CREATE TRIGGER", "incomplete input: SQLITE_ERROR")}, "could not be checked"),
    ("integers", {"rows": _rounded}, "9007199254740993 came back as 9007199254740992"),
    ("integers", {"sql": replaced(("(given.one ->> 1)", "CAST((given.one ->> 1) AS REAL)"))}, "(real)"),
    ("integers", {"sql": replaced((_SECOND, f"CAST({_SECOND} AS REAL)"))}, "(real)"),
    ("numbers as parameters", {"rows": _bound_as_text}, "binds as text"),
    ("RETURNING", {"rows": _one_short}, "5 rows were written, and 4"),
    ("foreign keys", {"sql": _without_keys}, "was taken"),
    ("defer_foreign_keys", {"sql": swallowed("defer_foreign_keys")}, "had no effect"),
    ("parameters", {"refuses": _many("?,", 60, TOO_MANY)}, "100 parameters are refused"),
    ("parameters", {"refuses": _many("?,", 99, ODD)}, "does not name the limit"),
    ("compound terms", {"refuses": _many("UNION", 3, TOO_COMPOUND)}, "5 terms"),
    ("statement", {"refuses": _many("x", 90_000, TOO_LONG)}, "100,000"),
    ("value", {"refuses": refusing("zeroblob(1000000)", "string or blob too big: SQLITE_TOOBIG")}, "2,000,000"),
    ("clock", {"rows": _off}, "-61"),
    ("scratch table removed", {"sql": swallowed("DROP TABLE")}, "could not be removed"),
]


@pytest.mark.parametrize(("name", "bent", "found"), BROKEN)
async def test_a_property_that_does_not_hold_is_found(
    place: Place, name: str, bent: dict[str, Any], found: str
) -> None:
    report = await checked(place, **bent)
    assert not report.ok
    assert name in failed(report), failed(report)
    assert found in failed(report)[name]
    if name != "scratch table removed":
        assert scratch_tables(place) == []


def test_every_check_has_been_seen_to_fail() -> None:
    elsewhere = {"round trip", "bookmark"}
    assert {name for name, _, _ in BROKEN} | elsewhere == {*NAMES, "scratch table removed"}


@pytest.mark.parametrize(
    ("name", "rows", "found"),
    [
        ("numbers as parameters", lambda sql, rows: [("integer",)] if "typeof(?1)" in sql else rows, "has changed"),
        ("RETURNING", lambda sql, rows: rows[::-1] if "RETURNING id" in sql else rows, "another order"),
        ("value", lambda _sql, rows: rows, "not promised"),
        ("clock", partial(_off, by_s=D1_MAX_CLOCK_OFF_S - 5.5), "-54."),
    ],
)
async def test_what_the_library_can_live_with_is_only_told(
    place: Place, name: str, rows: Callable[[str, Rows], Rows], found: str
) -> None:
    report = await checked(place, rows=rows)
    assert failed(report) == {}
    assert found in next(check.found for check in report.checks if check.check == name)


async def test_a_deferral_that_goes_on_behind_its_batch_is_found(place: Place) -> None:
    class Lasting(Bent):
        """Once asked for, foreign keys stay unchecked."""

        is_off = False

        async def query(self, body: bytes, count: int) -> list[Rows]:
            if b"defer_foreign_keys" in body:
                self.is_off = True
            elif self.is_off and b"-1" in body and count == 1:
                return [[]]
            return await super().query(body, count)

    database = place.database
    made = Lasting(D1Address(database.base, database.account, database.id), database.token)
    await made.open()
    try:
        report = await probe(made, database.url)
    finally:
        await made.close()
    assert "went on behind its batch" in failed(report)["defer_foreign_keys"]


async def test_rows_that_triggers_write_must_be_counted(place: Place) -> None:
    class Uncounted(Bent):
        async def query(self, body: bytes, count: int) -> list[Rows]:
            before = self.usage.rows_written
            rows = await super().query(body, count)
            self.usage.rows_written = before + 2
            return rows

    database = place.database
    made = Uncounted(D1Address(database.base, database.account, database.id), database.token)
    await made.open()
    try:
        report = await probe(made, database.url)
    finally:
        await made.close()
    assert "with what the trigger wrote" in failed(report)["triggers"]


async def test_a_slow_way_is_found(place: Place) -> None:
    ticks = iter(range(10**6))
    report = await checked(place, on={"timer": lambda: next(ticks) * (DEGRADED_LATENCY_MS / 1000 + 1)})
    assert "the fastest of 3 requests took 2,000 ms" in failed(report)["round trip"]


async def test_a_worker_that_gives_no_bookmark_is_found(d1_worker_engine: D1WorkerEngine) -> None:
    class Mute(WorkerTransport):
        async def _send(self, *arguments: Any) -> Any:
            answer = await super()._send(*arguments)
            self._newest = ""
            return answer

    engine = d1_worker_engine
    made = Mute(D1Address("", engine.account, engine.database), D1Worker(engine.url, engine.token))
    await made.open()
    try:
        report = await probe(made, engine.store_url)
    finally:
        await made.close()
    assert set(failed(report)) == {"bookmark"}
