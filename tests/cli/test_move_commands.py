"""The life of a move through the command line: verified, looked at, switched there and back, checked, ended."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from dal import FencedError, create_data_access
from dal.move.status import MoveStatus
from tests.cli.conftest import Command, document
from tests.cli.move_stores import ROWS, Stores, counts, gates, new_user
from tests.cli.test_schema_terminal import Terminal
from tests.move.replicas import run_sqlite

UNITS = ["memory", "chats", "files", "users", "audit"]
pytestmark = pytest.mark.usefixtures("swift")


def status(run: Command, stores: Stores) -> dict[str, dict[str, object]]:
    found = document(run("move", "status", *stores.options, "--json"))
    return {unit["unit"]: unit for unit in found["units"]}


def test_start_copies_everything_and_says_what_comes_next(run: Command, stores: Stores) -> None:
    done = run("move", "start", *stores.options, "--exit-when-verified", "--json")
    assert done.exit_code == 0
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["verified"]
    assert sum(unit["total"] for unit in last["units"]) == sum(unit["copied"] for unit in last["units"]) == ROWS
    assert f"next: dal move cutover --from {stores.source}" in done.stderr
    assert counts(stores.target) == counts(stores.source)
    # Again, with nothing left to do; and with what was written meanwhile.
    new_user(stores.source, "late")
    assert run("move", "start", *stores.options, "--exit-when-verified").exit_code == 0
    assert counts(stores.target) == counts(stores.source)


def test_status_works_while_no_mover_runs(run: Command, verified: Stores) -> None:
    shown = run("move", "status", *verified.options)
    assert shown.exit_code == 0
    assert "no mover is running" in shown.stdout
    assert "100%" in shown.stdout
    assert "dal move cutover" in shown.stderr
    new_user(verified.source, "late")
    users = status(run, verified)["users"]
    assert (users["phase"], users["primary"], users["dirty"]) == ("VERIFIED", "source", 1)
    check = users["check"]
    assert isinstance(check, dict)
    assert check["differences"] == 0


def test_before_a_move_status_says_how_to_begin(run: Command, stores: Stores) -> None:
    run("schema", "up", "--url", stores.target)
    shown = run("move", "status", *stores.options)
    assert shown.exit_code == 0
    assert "no move is on" in shown.stdout
    assert "dal move plan" in shown.stderr
    for command in ("cutover", "rollback", "check", "repair", "shadow"):
        refused = run("move", command, *stores.options)
        assert refused.exit_code == 1
        assert "dal move start" in refused.stderr


def test_a_cutover_there_and_back_keeps_what_was_written_in_between(run: Command, verified: Stores) -> None:
    new_user(verified.source, "before")
    there = document(run("move", "cutover", *verified.options, "--json"))
    assert [one["unit"] for one in there["switched"]] == UNITS
    assert all(one["stall_ms"] > 0 and one["epoch"] == 2 for one in there["switched"])
    assert set(there["lives_on"].values()) == {"target"}
    followed = run("move", "start", *verified.options, "--exit-when-verified")
    assert "next, when you trust the target: dal move retire" in followed.stderr
    assert "next: dal move cutover" not in followed.stderr
    new_user(verified.target, "on the target")
    with pytest.raises(FencedError):
        new_user(verified.source, "too late")
    users = status(run, verified)["users"]
    assert (users["phase"], users["primary"]) == ("SWITCHED", "target")
    cutovers = users["cutovers"]
    assert isinstance(cutovers, list)
    assert cutovers[-1]["stall_ms"] == pytest.approx(there["switched"][3]["stall_ms"], abs=0.06)
    back = run("move", "rollback", *verified.options)
    assert back.exit_code == 0, back.output
    assert "run dal move start" in back.stderr
    assert counts(verified.source)["users"] == counts(verified.target)["users"]
    new_user(verified.source, "at home")
    names = [line.split(": ")[1] for line in back.stderr.splitlines() if "lives on the source" in line]
    assert names == UNITS[::-1]


def test_units_are_switched_one_by_one(run: Command, verified: Stores) -> None:
    done = document(run("move", "cutover", *verified.options, "--only", "memory", "--json"))
    assert done["lives_on"] == {unit: "target" if unit == "memory" else "source" for unit in UNITS}
    again = run("move", "cutover", *verified.options, "--only", "memory")
    assert again.exit_code == 0
    assert "on the target already" in again.stderr
    rest = document(run("move", "cutover", *verified.options, "--json"))
    assert [one["unit"] for one in rest["switched"]] == UNITS[1:]


def test_a_cutover_stops_at_the_unit_that_fails_and_says_where_what_is(run: Command, verified: Stores) -> None:
    change_phase(verified.source, "files", "SYNC")
    failed = run("move", "cutover", *verified.options)
    assert failed.exit_code == 1
    assert "memory, chats on the target; files, users, audit on the source" in failed.stderr
    assert "--only files,users,audit" in failed.stderr
    assert {unit: gate.role for unit, gate in gates(verified.source).items()} == {
        "memory": "replica", "chats": "replica", "files": "primary", "users": "primary", "audit": "primary"
    }  # fmt: skip


def change_phase(url: str, unit: str, phase: str) -> None:
    run_sqlite_url(url, f"UPDATE dal_gate SET phase = '{phase}' WHERE unit = '{unit}'")


def run_sqlite_url(url: str, *statements: str) -> list[tuple[object, ...]]:
    return run_sqlite(Path(url.removeprefix("sqlite:")), *statements)


def test_what_was_changed_behind_the_move_is_found_and_repaired(run: Command, verified: Stores) -> None:
    mark = "UPDATE dal_applying SET is_on = "
    run_sqlite_url(
        verified.target, f"{mark}1", "UPDATE users SET name = 'changed' WHERE id = (SELECT min(id) FROM users)"
    )
    run_sqlite_url(verified.target, "DELETE FROM files WHERE id = (SELECT min(id) FROM files)", f"{mark}0")
    found = document(run("move", "check", *verified.options, "--json"), code=1)
    assert found["differences"] == 2
    assert status(run, verified)["users"]["check"]["differences"] == 1  # type: ignore[index]
    dry = run("move", "repair", *verified.options)
    assert dry.exit_code == 1
    assert "would copy 2 rows" in dry.stderr
    assert run("move", "repair", *verified.options, "--yes").exit_code == 0
    assert run("move", "start", *verified.options, "--exit-when-verified").exit_code == 0
    clean = document(run("move", "check", *verified.options, "--json"))
    assert clean["equal"]
    assert document(run("move", "check", *verified.options, "--mode", "quick", "--json"))["equal"]


def test_shadow_reads_are_set_in_the_gates_and_their_results_shown(run: Command, verified: Stores) -> None:
    assert run("move", "shadow", *verified.options, "--percent", "10", "--only", "memory,chats").exit_code == 0
    assert {unit: gate.shadow_percent for unit, gate in gates(verified.source).items() if gate.shadow_percent} == {
        "memory": 10,
        "chats": 10,
    }
    notes = '{"shadow": {"compared": 7, "different": 1, "unsettled": 0}}'
    run_sqlite_url(verified.source, f"UPDATE dal_gate SET notes = '{notes}' WHERE unit = 'chats'")
    shown = run("move", "shadow", *verified.options)
    assert shown.exit_code == 1
    assert "10 %: 7 compared, 1 different" in shown.stdout
    assert run("move", "shadow", *verified.options, "--percent", "0").exit_code == 0
    assert not any(gate.shadow_percent for gate in gates(verified.source).values())
    assert run("move", "shadow", *verified.options, "--percent", "101").exit_code == 2


def test_retire_ends_a_move_and_leaves_a_readable_source_that_refuses_writes(run: Command, verified: Stores) -> None:
    early = run("move", "retire", *verified.options)
    assert early.exit_code == 1
    assert "not switched yet" in early.stderr
    assert run("move", "cutover", *verified.options).exit_code == 0
    done = run("move", "retire", *verified.options)
    assert done.exit_code == 0, done.output
    assert "MIGRATION_ENABLE_DUAL_WRITE" in done.stderr
    with pytest.raises(FencedError):
        new_user(verified.source, "too late")
    assert counts(verified.source) == counts(verified.target)
    new_user(verified.target, "at home")
    assert document(run("move", "status", *verified.options, "--json"))["retired"]
    again = run("move", "start", *verified.options)
    assert again.exit_code == 1
    assert "retired" in again.stderr


def test_abort_leaves_nothing_in_the_source(run: Command, verified: Stores) -> None:
    assert run("move", "cutover", *verified.options, "--only", "memory").exit_code == 0
    refused = run("move", "abort", *verified.options)
    assert refused.exit_code == 1
    assert "roll it back first" in refused.stderr
    assert run("move", "rollback", *verified.options).exit_code == 0
    assert run("move", "abort", *verified.options).exit_code == 0
    assert gates(verified.source) == gates(verified.target) == {}
    left = run_sqlite_url(verified.source, "SELECT name FROM sqlite_master WHERE name LIKE 'dal\\_%' ESCAPE '\\'")
    assert not [name for (name,) in left if str(name).startswith(("dal_sync", "dal_gate", "dal_capture", "dal_fence"))]
    again = run("move", "abort", *verified.options)
    assert again.exit_code == 0
    assert "no move is on" in again.stderr
    # The target holds copies: a new move is told so.
    assert run("move", "start", *verified.options, "--exit-when-verified").exit_code == 1
    assert run("move", "start", *verified.options, "--exit-when-verified", "--allow-obstacles").exit_code == 0


def test_a_move_whose_target_is_lost_can_be_given_up(run: Command, verified: Stores) -> None:
    Path(verified.target.removeprefix("sqlite:")).unlink()
    lost = run("move", "abort", *verified.options)
    assert lost.exit_code == 1
    assert lost.stderr.startswith("dal: SchemaError: the target: ")
    # A new store under the old name is not taken for the lost one.
    again = run("move", "start", *verified.options)
    assert again.exit_code == 1
    assert "another move" in again.stderr
    assert run("move", "abort", "--from", verified.source, "--without-target").exit_code == 0
    assert gates(verified.source) == {}
    assert run("move", "abort", "--from", verified.source, "--without-target").exit_code == 1


def test_a_target_that_is_written_to_is_not_left_behind(run: Command, verified: Stores) -> None:
    assert run("move", "cutover", *verified.options, "--only", "memory").exit_code == 0
    refused = run("move", "abort", "--from", verified.source, "--without-target")
    assert refused.exit_code == 1
    assert "its rows would be lost" in refused.stderr
    assert len(gates(verified.source)) == len(UNITS)


def test_doctor_tells_of_the_move(run: Command, verified: Stores) -> None:
    found = document(
        run("doctor", "--url", verified.target, "--json"), code=run("doctor", "--url", verified.target).exit_code
    )
    assert found["move"].startswith("this is the target of a live move: ")
    assert "memory replica" in found["move"]


@pytest.mark.parametrize("command", ["cutover", "abort"])
def test_a_person_is_asked_and_a_no_changes_nothing(verified: Stores, command: str) -> None:
    terminal = Terminal("move", command, *verified.options)
    terminal.until(b"[y/N]")
    terminal.say(b"n\n")
    code, shown = terminal.finish()
    assert code == 1
    assert "nothing was done" in shown
    assert {gate.role for gate in gates(verified.source).values()} == {"primary"}


def test_a_source_that_is_moved_elsewhere_cannot_be_moved_here(run: Command, verified: Stores) -> None:
    other = Stores(verified.source, verified.target.replace("target", "other"))
    refused = run("move", "start", *other.options, "--allow-obstacles")
    assert refused.exit_code == 1
    assert "takes part in another move" in refused.stderr
    assert gates(other.target) == {}


def test_applications_follow_a_cutover(run: Command, verified: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIGRATION_ENABLE_DUAL_WRITE", "true")
    monkeypatch.setenv("MIGRATION_TARGET_URL", verified.target)

    async def write(name: str) -> None:
        async with create_data_access(verified.source) as data_access:
            await data_access.users.create(name=name)

    asyncio.run(write("before"))
    before = counts(verified.target)["users"]
    assert run("move", "cutover", *verified.options).exit_code == 0
    asyncio.run(write("after"))
    assert counts(verified.target)["users"] >= before + 1


def test_a_move_that_is_not_on_is_not_verified() -> None:
    assert not MoveStatus().is_verified
