"""`dal doctor` on D1: each check sees the property it is about break, and nothing but the scratch table is touched.

The database is the real engine; what is bent is the way to it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
import pytest

from dal.backends.d1.checks import CHECKS
from dal.backends.d1.errors import Failure
from dal.backends.d1.probe import SelfCheck, probe
from dal.backends.d1.transport import D1Address, D1Transport, Rows
from dal.backends.d1.worker import D1Worker, WorkerTransport
from dal.factory import self_check
from dal.limits import D1_MAX_CLOCK_OFF_S, DEGRADED_LATENCY_MS, SCRATCH_LIFETIME_S
from tests.d1.conftest import Place
from tests.engines.d1_worker import D1WorkerEngine

Change = Callable[[str], str]
#: Of the engine that the tests run, whatever it has learnt meanwhile.
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


def _off(sql: str, rows: Rows) -> Rows:
    return [(float(str(rows[0][0])) + D1_MAX_CLOCK_OFF_S + 1,)] if "julianday" in sql else rows


def _many(what: str, number: int, text: str) -> Callable[[str], str | None]:
    """More of this than so many are refused."""
    return lambda sql: text if sql.count(what) > number else None


TOO_MANY: Final = "too many SQL variables: SQLITE_ERROR"
TOO_COMPOUND: Final = "too many terms in compound SELECT: SQLITE_ERROR"
TOO_LONG: Final = "statement too long: SQLITE_TOOBIG"
_SECOND: Final = "json_extract(?1, '$[1]')"
ODD: Final = "something else: SQLITE_MISUSE"


@pytest.mark.parametrize(
    ("name", "bent", "found"),
    [
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
    ],
)  # fmt: skip
async def test_a_property_that_does_not_hold_is_found(
    place: Place, name: str, bent: dict[str, Any], found: str
) -> None:
    report = await checked(place, **bent)
    assert not report.ok
    assert name in failed(report), failed(report)
    assert found in failed(report)[name]
    if name != "scratch table removed":
        assert scratch_tables(place) == []


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


# On its way ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", [{"drop": True}, {"status": 502, "body": "<html>"}, {"status": 429}])
@pytest.mark.parametrize("match", ["CREATE TABLE", "INSERT", "CREATE TRIGGER", "DROP TABLE"])
async def test_a_lost_answer_spoils_no_check(place: Place, when: str, fault: dict[str, object], match: str) -> None:
    place.faults({"when": when, "match": match, **fault})
    assert failed(await checked(place)) == {}
    assert scratch_tables(place) == []


async def test_a_check_whose_answers_are_all_lost_has_failed_and_the_rest_go_on(place: Place) -> None:
    place.faults({"match": "CREATE TRIGGER", "status": 503, "count": 100})
    report = await checked(place)
    assert set(failed(report)) == {"triggers"}
    assert "could not be checked" in failed(report)["triggers"]


async def test_where_nothing_may_be_written_it_says_so(place: Place) -> None:
    place.faults({"match": "CREATE TABLE", "status": 503, "count": 100})
    report = await checked(place)
    assert set(failed(report)) == {"scratch table"}
    assert "could not be made" in failed(report)["scratch table"]
    assert scratch_tables(place) == []


# Nothing stays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["CREATE TABLE", "UNION", "CREATE TRIGGER", "DROP TABLE"])
@pytest.mark.parametrize("is_sent", [False, True])
async def test_a_check_that_is_interrupted_takes_its_table_along(place: Place, at: str, is_sent: bool) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    too_early = []

    class Stopping(Bent):
        async def query(self, body: bytes, count: int) -> list[Rows]:
            if at.encode() in body and not reached.is_set():
                rows = await super().query(body, count) if is_sent else None
                reached.set()
                await go_on.wait()
                return await super().query(body, count) if rows is None else rows
            if not go_on.is_set() and reached.is_set():
                too_early.append(body)
            return await super().query(body, count)

    database = place.database
    made = Stopping(D1Address(database.base, database.account, database.id), database.token)
    await made.open()
    try:
        task = asyncio.create_task(probe(made, database.url))
        await reached.wait()
        task.cancel()
        for _ in range(50):  # enough for the next request, were it not waiting
            await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        await made.close()
    assert too_early == []
    assert scratch_tables(place) == []


def test_ctrl_c_leaves_nothing(place: Place) -> None:
    place.faults({"match": "CREATE TRIGGER", "delay_ms": 1500, "when": "before"})
    process = subprocess.Popen(
        [sys.executable, "-m", "dal.cli", "doctor", "--url", place.database.url],
        env={**os.environ, **place.database.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not scratch_tables(place) and process.poll() is None:
            pass  # each look is a request to the engine
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, output + errors
    assert scratch_tables(place) == []


async def test_tables_of_killed_runs_are_removed_and_no_others(place: Place) -> None:
    (now,) = place.rows("SELECT unixepoch()")[0]
    assert isinstance(now, int)
    old = [f"dal_doctor_{now - int(SCRATCH_LIFETIME_S) - 60}_{'0' * 16}", f"dal_doctor_1700000000_{'ab' * 8}"]
    kept = [f"dal_doctor_{now - 60}_{'1' * 16}", "dal_doctor_notes", "dal_doctor_1700000000_mine", "dalXdoctorX1"]
    for name in (*old, *kept):
        place.rows(f'CREATE TABLE "{name}" (a)')
    report = await checked(place)
    assert failed(report) == {}
    assert "2 that a killed run had left" in report.checks[0].found
    names = [name for (name,) in place.rows("SELECT name FROM sqlite_master WHERE name LIKE 'dal_doctor%'")]
    assert sorted(map(str, names)) == sorted(kept)


# The command ---------------------------------------------------------------------------------------------------------


def doctor(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dal.cli", "doctor", "--url", place.database.url, *arguments],
        env={**os.environ, **place.database.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_shows_a_table_and_its_cost(place: Place) -> None:
    result = doctor(place)
    assert result.returncode == 0, result.stdout + result.stderr
    for name in NAMES:
        assert f"  {name} " in result.stdout
    assert "FAILED" not in result.stdout
    assert "requests," in result.stderr
    assert "rows written" in result.stderr
    assert place.database.token not in result.stdout + result.stderr


def test_the_command_gives_json(place: Place) -> None:
    found = json.loads(doctor(place, "--json").stdout)["self_check"]
    assert [check["check"] for check in found["checks"]] == ["scratch table", *NAMES, "scratch table removed"]
    assert all(check["ok"] is True and check["found"] for check in found["checks"])
    assert found["requests"] > 0


def test_a_failed_check_is_exit_code_1(place: Place) -> None:
    place.faults({"match": "CREATE TRIGGER", "status": 400, "message": "incomplete input: SQLITE_ERROR", "count": 9})
    result = doctor(place)
    assert result.returncode == 1
    assert "FAILED" in result.stdout


def test_the_trial_can_be_left_out(place: Place) -> None:
    result = doctor(place, "--no-probe", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["self_check"] is None


def test_a_database_without_a_schema_is_tried_all_the_same(place: Place) -> None:
    empty = Place(place.engine, place.engine.create_database())
    result = doctor(empty, "--json")
    assert result.returncode == 1
    found = json.loads(result.stdout)
    assert found["health"]["status"] == "down"
    assert all(check["ok"] for check in found["self_check"]["checks"])


async def test_two_doctors_at_once_do_not_meet(place: Place) -> None:
    for report in await asyncio.gather(checked(place), checked(place)):
        assert failed(report) == {}
    assert scratch_tables(place) == []
