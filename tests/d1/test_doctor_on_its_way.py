"""`dal doctor` on D1 when answers are lost, when it is interrupted and after it was killed; and the command itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from dal.backends.d1.probe import probe
from dal.backends.d1.transport import D1Address, Rows
from dal.limits import SCRATCH_LIFETIME_S
from dal.testing.reaching import reached
from tests.d1.bent import NAMES, Bent, checked, failed, scratch_tables
from tests.d1.conftest import Place

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
    there, go_on = asyncio.Event(), asyncio.Event()
    too_early = []

    class Stopping(Bent):
        async def query(self, body: bytes, count: int) -> list[Rows]:
            if at.encode() in body and not there.is_set():
                rows = await super().query(body, count) if is_sent else None
                there.set()
                await go_on.wait()
                return await super().query(body, count) if rows is None else rows
            if not go_on.is_set() and there.is_set():
                too_early.append(body)
            return await super().query(body, count)

    database = place.database
    made = Stopping(D1Address(database.base, database.account, database.id), database.token)
    await made.open()
    try:
        task = asyncio.create_task(probe(made, database.url))
        await reached(there, task)
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
