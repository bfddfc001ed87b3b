"""Answers that get lost: wherever it happens, everything is done once and the caller is told right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from dal import DataAccess, UnavailableError
from dal.backends.d1 import executor
from dal.errors import AlreadyExistsError, ConflictError, DalTimeoutError, NotFoundError
from dal.models import NewMessage
from dal.ops import Compare, Delete, Insert, Op, Ref, Update, Upsert
from dal.store import Store
from dal.testing import FakeClock, rows, sequential_ids
from tests.d1.conftest import Place

#: How an answer can fail to arrive, or to make sense.
LOSSES: Final[dict[str, dict[str, object]]] = {
    "a connection that breaks off": {"drop": True},
    "a server error": {"status": 500, "code": 7500, "message": "internal error"},
    "a lost connection behind the API": {"status": 400, "code": 7500, "message": "D1_ERROR: Network connection lost."},
    "a reset": {"status": 500, "code": 7500, "message": "D1 DB storage operation caused object to be reset."},
    "a page of HTML": {
        "status": 502,
        "body": "<html><h1>Bad gateway</h1></html>",
        "headers": {"content-type": "text/html"},
    },
    "success false with 200": {
        "status": 200,
        "code": 7500,
        "message": "D1 DB is overloaded.",
    },
    "null for a result": {"status": 200, "body": '{"success": true, "errors": [], "messages": [], "result": null}'},
    "too few results": {"status": 200, "body": '{"success": true, "errors": [], "messages": [], "result": []}'},
    "half an answer": {"status": 200, "body": '{"success": true, "result": [{"resu'},
}

_USER: Final = rows.row_id(91)
Call = Callable[[DataAccess], Awaitable[object]]


def _transaction(dal: DataAccess) -> Awaitable[object]:
    async def run() -> object:
        async with dal.transaction() as tx:
            message = await tx.messages.add("c", "user", "in a transaction")
            await tx.memory.delete(_USER, "t", "k")
            return message, await tx.messages.count("c")

    return run()


CALLS: Final[dict[str, Call]] = {
    "users.create": lambda dal: dal.users.create(clerk_id="new"),
    "users.update": lambda dal: dal.users.update(_USER, name="changed", expected_version=1),
    "users.touch": lambda dal: dal.users.touch(_USER),
    "users.delete": lambda dal: dal.users.delete(_USER),
    "users.delete of nobody": lambda dal: dal.users.delete(rows.row_id(404)),
    "chats.create": lambda dal: dal.chats.create("d"),
    "chats.update": lambda dal: dal.chats.update("c", title="changed"),
    "chats.delete": lambda dal: dal.chats.delete("c"),
    "messages.add": lambda dal: dal.messages.add("c", "user", "hello", expected_sequence=3),
    "messages.add_many": lambda dal: dal.messages.add_many("c", [NewMessage("user", f"m{n}") for n in range(5)]),
    "messages.flag": lambda dal: dal.messages.flag(rows.row_id(94)),
    "memory.set": lambda dal: dal.memory.set(_USER, "t", "k", {"n": 2}),
    "memory.set_many": lambda dal: dal.memory.set_many(_USER, "t", {"k": 1, "l": 2}),
    "memory.delete": lambda dal: dal.memory.delete(_USER, "t"),
    "memory.purge_expired": lambda dal: dal.memory.purge_expired(),
    "files.create": lambda dal: dal.files.create(_USER, "f", storage_key="new", file_size=2**53 + 1),
    "files.delete": lambda dal: dal.files.delete(rows.row_id(98)),
    "audit.record": lambda dal: dal.audit.record("done"),
    "a transaction": _transaction,
}


async def _prepare(dal: DataAccess) -> None:
    """A user, a chat with two messages, items of memory, and a file; ids that count up stay below theirs."""
    user = await dal.users.create(clerk_id="ada", id=_USER)
    await dal.chats.create("c", user_id=user.id)
    await dal.messages.add("c", "user", "one", id=rows.row_id(93))
    await dal.messages.add("c", "user", "two", id=rows.row_id(94))
    await dal.memory.set(user.id, "t", "k", 1)
    await dal.memory.set(user.id, "t", "short", 1, ttl=1)
    await dal.files.create(user.id, "f", storage_key="s", file_size=1, id=rows.row_id(98))


async def _outcome(place: Place, call: Call, *faults: dict[str, object]) -> tuple[object, object]:
    """What the call gives, and all that is stored afterwards."""
    store = place.store()
    clock = FakeClock()
    async with DataAccess(store, clock=clock, new_id=sequential_ids()) as dal:
        await _prepare(dal)
        clock.advance(2)
        place.faults(*faults)
        answer = await call(dal)
        place.faults()
        return answer, await rows.everything(store)


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "D1_RETRY_FIRST_WAIT_S", 0.0)


@pytest.mark.parametrize("call", list(CALLS))
async def test_a_lost_answer_changes_nothing_wherever_it_happens(another_place: Callable[[], Place], call: str) -> None:
    """The n-th request of the call is carried out and its answer lost; then the next one, until there is none."""
    expected = await _outcome(another_place(), CALLS[call])
    for position in range(10):
        place = another_place()
        fault: dict[str, object] = {"when": "after", "drop": True, "skip": position}
        assert await _outcome(place, CALLS[call], fault) == expected, f"request {position}"
        if place.engine.requests(place.database) <= position:
            break


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["messages.add", "memory.set", "memory.delete"])
async def test_an_answer_lost_in_any_way_is_made_good(
    another_place: Callable[[], Place], call: str, when: str, loss: str
) -> None:
    expected = await _outcome(another_place(), CALLS[call])
    for count in (1, 3):
        fault = {"when": when, "count": count, **LOSSES[loss]}
        assert await _outcome(another_place(), CALLS[call], fault) == expected, f"{count} times"


async def test_an_answer_lost_each_time_is_found_out_in_the_end(place: Place, store: Store) -> None:
    """Four answers in a row are lost; the commit's id tells that the first had been carried out."""
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    place.faults({"when": "after", "match": "INSERT INTO messages", "drop": True, "count": 4})
    receipt = await store.commit(rows.append(2, 1))
    assert receipt.rows == (None, (1,))
    assert place.rows("SELECT count(*) FROM messages") == [[1]]


async def test_what_was_never_carried_out_is_known_not_to_be(place: Place, store: Store) -> None:
    place.faults({"when": "before", "match": "INSERT INTO system_logs", "status": 500, "count": 4})
    with pytest.raises(DalTimeoutError, match="gave up after 4 tries") as caught:
        await store.commit([Insert("system_logs", rows.log(1))])
    assert caught.value.outcome == "not_applied"
    assert place.rows("SELECT count(*) FROM system_logs") == [[0]]
    burnt = place.rows("SELECT counts FROM dal_commits")
    assert burnt == [["burnt"]], "a request that is still on its way comes too late"


async def test_without_any_answer_the_outcome_is_unknown(place: Place, store: Store) -> None:
    place.faults({"when": "after", "match": "INSERT INTO", "drop": True, "count": 100})
    with pytest.raises(DalTimeoutError) as caught:
        await store.commit([Insert("system_logs", rows.log(1))])
    assert caught.value.outcome == "unknown"
    place.faults()
    assert place.rows("SELECT count(*) FROM system_logs") == [[1]]


@pytest.mark.parametrize("kept", [0, 1])
async def test_a_refusal_behind_a_lost_answer_is_told_apart(place: Place, store: Store, kept: int) -> None:
    """The second try meets a taken key: its own, where the first had arrived, or that of somebody else."""
    place.faults({"when": "after" if kept else "before", "match": "INSERT INTO users", "drop": True})
    if not kept:
        rival = place.store()
        await rival.open()
        original = store._executor.transport.query  # type: ignore[attr-defined]

        async def query(body: bytes, count: int) -> object:
            try:
                return await original(body, count)
            except Exception:
                await rival.commit([Insert("users", rows.user(9, clerk_id="wanted"))])
                store._executor.transport.query = original  # type: ignore[attr-defined]
                raise

        store._executor.transport.query = query  # type: ignore[attr-defined]
        with pytest.raises(AlreadyExistsError) as caught:
            await store.commit([Insert("users", rows.user(1, clerk_id="wanted"))])
        assert caught.value.outcome == "not_applied"
        await rival.close()
    else:
        assert (await store.commit([Insert("users", rows.user(1, clerk_id="wanted"))])).counts == (1,)
    assert len(place.rows("SELECT id FROM users")) == 1


async def test_counts_of_several_deletes_survive_a_lost_answer(place: Place, store: Store) -> None:
    await store.commit([Insert("system_logs", rows.log(n, action=f"a{n % 3}")) for n in range(7)])
    ops: list[Op] = [
        Delete("system_logs", (Compare("action", "=", "a0"),)),
        Update("users", {"id": rows.row_id(404)}, {"name": "nobody"}),
        Delete("system_logs", (Compare("action", "=", "none"),)),
        Delete("system_logs", (Compare("action", "in", ("a1", "a2")),)),
    ]
    place.faults({"when": "after", "match": "DELETE", "drop": True})
    assert (await store.commit(ops)).counts == (3, 0, 0, 4)


async def test_a_lost_answer_tells_whether_the_condition_of_an_upsert_held(place: Place, store: Store) -> None:
    await store.commit([Insert("users", rows.user(1)), Insert("user_memory", rows.memory(2, 1, key="k", value=1))])
    on = ("user_id", "memory_type", "key")
    for wanted, count in ((2, 0), (1, 1)):
        where = (Compare("version", "=", wanted),)
        upsert = Upsert(
            "user_memory", rows.memory(3, 1, key="k", value=9), on, ("value",), {"version": 1}, where, ("value",)
        )
        place.faults({"when": "after", "match": "INSERT INTO user_memory", "drop": True})
        receipt = await store.commit([upsert])
        assert receipt.counts == (count,)
        assert receipt.rows == ((9,) if count else None,)


async def test_an_answer_that_cannot_be_recalled_is_an_unknown_outcome(place: Place, store: Store) -> None:
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    original = store._executor.transport.query  # type: ignore[attr-defined]

    async def query(body: bytes, count: int) -> object:
        try:
            return await original(body, count)
        except Exception:
            place.rows("DELETE FROM chat_sessions")
            raise

    store._executor.transport.query = query  # type: ignore[attr-defined]
    place.faults({"when": "after", "match": "INSERT INTO messages", "drop": True})
    with pytest.raises(UnavailableError, match="gone since") as caught:
        await store.commit(rows.append(2, 1))
    assert (caught.value.outcome, caught.value.retryable) == ("unknown", False)


async def test_ids_of_old_commits_are_deleted_on_occasion(place: Place) -> None:
    place.rows("INSERT INTO dal_commits (id) VALUES ('000000000000old')")
    store = place.store()
    await store.open()
    await store.commit([Insert("system_logs", rows.log(1))])
    await store.commit([Insert("system_logs", rows.log(2))])
    kept = place.rows("SELECT id FROM dal_commits")
    assert len(kept) == 2
    assert all("old" not in str(row[0]) for row in kept)
    await store.close()


async def test_a_stale_guard_behind_a_lost_answer_is_no_conflict(place: Place, dal: DataAccess) -> None:
    """The repeat finds the version that the first try has raised itself."""
    user = await dal.users.create(name="Ada")
    place.faults({"when": "after", "match": "UPDATE users", "drop": True})
    assert (await dal.users.update(user.id, name="Bo", expected_version=1)).version == 2
    with pytest.raises(ConflictError, match="version 2"):
        await dal.users.update(user.id, name="Cy", expected_version=1)
    with pytest.raises(NotFoundError):
        await dal.users.update(rows.row_id(404), name="Cy")


async def test_a_ref_row_recalled_is_the_row_that_was_written(place: Place, store: Store) -> None:
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    key = {"id": rows.row_id(1)}
    insert = Insert(
        "messages",
        rows.message(2, 1) | {"sequence_number": Ref("chat_sessions", key, "message_count", 7)},
        returning=("sequence_number", "content", "metadata"),
    )
    place.faults({"when": "after", "match": "INSERT INTO messages", "drop": True})
    assert (await store.commit([insert])).rows == ((7, "message 2", {}),)
