"""D1: an answer lost on its way changes nothing of what a move's calls say and do."""

from __future__ import annotations

from typing import cast

import pytest

from dal.errors import DalTimeoutError
from dal.ops import Insert
from dal.replica import EPOCH, UNITS, Gate, Key, Movable, Replica
from dal.store import Store
from dal.testing import rows
from tests.d1.conftest import Place
from tests.move.replicas import copied, entry, hashed

ID = rows.row_id


@pytest.fixture
def replica(store: Store) -> Replica:
    return cast(Movable, store).replica()


def gates(role: str) -> list[Gate]:
    return [Gate(unit, "m1", "source", role, 1, 2, "CAPTURE") for unit in UNITS]  # type: ignore[arg-type]


async def test_a_switch_whose_answer_was_lost_is_told_as_it_went(place: Place, replica: Replica) -> None:
    place.faults({"when": "after", "match": "CREATE TABLE", "drop": True})
    await replica.install(gates("replica"))
    place.faults({"when": "after", "match": "UPDATE dal_gate", "drop": True, "count": 4})
    change = {"role": "primary", "epoch": 2}
    assert await replica.change_gate("users", expect={"role": "replica"}, change=change)  # type: ignore[arg-type]
    place.faults({"when": "after", "match": "UPDATE dal_gate", "drop": True})
    assert not await replica.change_gate("users", expect={"role": "replica"}, change=change)  # type: ignore[arg-type]
    assert (await replica.gates())["users"].role == "primary"


async def test_a_switch_that_never_arrived_is_known_not_to_have(place: Place, replica: Replica) -> None:
    await replica.install(gates("primary"))
    place.faults({"when": "before", "match": "UPDATE dal_gate", "drop": True, "count": 4})
    with pytest.raises(DalTimeoutError) as caught:
        await replica.change_gate("users", expect={}, change={"role": "fenced"})
    assert caught.value.outcome == "not_applied"
    assert (await replica.gates())["users"].role == "primary"


async def test_copies_whose_answers_were_lost_are_made_once(place: Place, replica: Replica) -> None:
    await replica.install(gates("replica"))
    given = [entry("users", rows.user(n), EPOCH + n) for n in range(1, 4)]
    place.faults({"when": "after", "match": "INSERT INTO users", "drop": True})
    assert (await replica.apply(given)).won == {Key("users", ID(n)) for n in range(1, 4)}
    assert place.rows("SELECT count(*) FROM users") == [[3]]
    assert place.rows("SELECT is_on FROM dal_applying") == [[0]]


async def test_the_registrys_own_writes_survive_lost_answers(place: Place, store: Store, replica: Replica) -> None:
    await store.commit([Insert("users", rows.user(n)) for n in range(1, 4)])
    await replica.install(gates("primary"))
    for sql in ("INSERT INTO dal_sync", "UPDATE dal_sync", "UPDATE dal_unit"):
        place.faults({"when": "after", "match": sql, "drop": True})
        assert await replica.seed("users", "", 2) == ID(2)
        assert await replica.seed("users", ID(2), 2) == ""
        for one in await replica.dirty("users", 10):
            await replica.acknowledge([copied(hashed(one))])
        assert await replica.dirty("users", 10) == []
        before = (await replica.entries("users", [ID(1)]))[0].version
        assert await replica.raise_versions("users", [ID(1)]) == 1
        assert (await replica.entries("users", [ID(1)]))[0].version > before
    await replica.uninstall(keep_fence=False)
