"""What D1 answers, in the library's words: each answer the right error, no answer's text or token in any of them."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

import httpx
import pytest

from dal import DataAccess, Settings
from dal.backends.d1 import executor
from dal.backends.d1.transport import D1Address, D1Transport
from dal.backends.d1.wire import Entry
from dal.errors import (
    ConfigurationError,
    DalError,
    DalTimeoutError,
    LimitExceededError,
    SchemaError,
    UnavailableError,
    UnsupportedError,
)
from dal.factory import create_store
from dal.limits import RETRY_ATTEMPTS
from dal.ops import Count, Insert
from dal.store import Store
from dal.testing import rows
from tests.d1.conftest import Place


class Case(NamedTuple):
    """An answer that comes each time, and the error that says so; what a write's outcome then is; tries made."""

    fault: dict[str, object]
    error: type[DalError]
    outcome: str = "not_applied"
    tries: int = 1


def _text(status: int, message: str, code: int = 7500) -> dict[str, object]:
    return {"status": status, "code": code, "message": message}


_EVERY = RETRY_ATTEMPTS
CASES: Final[dict[str, Case]] = {
    "a token that is refused": Case(_text(401, "Authentication error", 10000), ConfigurationError),
    "an account of others": Case(_text(403, "The given account is not valid", 7403), ConfigurationError),
    "no such database": Case(_text(404, "The database could not be found", 7404), ConfigurationError),
    "a firewall's page": Case({"status": 403, "body": "<html>blocked</html>"}, ConfigurationError),
    "not D1's API": Case({"status": 405, "body": "Method not allowed"}, ConfigurationError),
    "too many requests": Case(_text(429, "Rate limited", 971), DalTimeoutError, tries=_EVERY),
    "too many requests, in HTML": Case({"status": 429, "body": "<html>1015</html>"}, DalTimeoutError, tries=_EVERY),
    "an error of the server": Case(_text(500, "internal error"), DalTimeoutError, "unknown", _EVERY),
    "a gateway's page": Case({"status": 502, "body": "<html>bad</html>"}, DalTimeoutError, "unknown", _EVERY),
    "an unreachable origin": Case({"status": 522, "body": "<html>522</html>"}, DalTimeoutError, "unknown", _EVERY),
    "overload": Case(_text(503, "D1 DB is overloaded. Too many requests queued."), DalTimeoutError, "unknown", _EVERY),
    "overload with 400": Case(_text(400, "D1 DB is overloaded."), DalTimeoutError, "unknown", _EVERY),
    "a lost connection with 400": Case(_text(400, "Network connection lost."), DalTimeoutError, "unknown", _EVERY),
    "an update of D1": Case(_text(400, "reset because its code was updated."), DalTimeoutError, "unknown", _EVERY),
    "a connection that breaks": Case({"drop": True}, DalTimeoutError, "unknown", _EVERY),
    "no JSON with 200": Case({"body": "<html>hello</html>"}, DalTimeoutError, "unknown", _EVERY),
    "JSON of another form": Case({"body": "[1, 2]"}, DalTimeoutError, "unknown", _EVERY),
    "a null result": Case({"body": '{"success": true, "result": null}'}, DalTimeoutError, "unknown", _EVERY),
    "results of another form": Case(
        {"body": '{"success": true, "result": [{"results": null}]}'}, DalTimeoutError, "unknown", _EVERY
    ),
    "a statement's time is up": Case(_text(400, "D1 DB exceeded its CPU time limit and was reset."), DalTimeoutError),
    "storage's time is up": Case(
        _text(500, "D1 DB storage operation exceeded timeout which caused object to be reset."), DalTimeoutError
    ),
    "a full database": Case(_text(400, "Exceeded maximum DB size."), UnavailableError),
    "a full account": Case(
        _text(400, "Your account has exceeded D1's maximum account storage limit"), UnavailableError
    ),
    "a missing table": Case(_text(400, "no such table: users: SQLITE_ERROR"), SchemaError),
    "a statement that does not fit": Case(_text(400, 'near "X": syntax error: SQLITE_ERROR'), SchemaError),
    "a value too big": Case(_text(400, "string or blob too big: SQLITE_TOOBIG"), LimitExceededError),
    "a compound SELECT too long": Case(_text(400, "too many terms in compound SELECT"), LimitExceededError),
    "a request too large": Case({"status": 413, "body": "<html>too large</html>"}, LimitExceededError),
    "a statement D1 forbids": Case(_text(400, "not authorized: SQLITE_AUTH"), UnsupportedError),
    "another refusal": Case(_text(400, "something new"), DalError),
    "a malformed request": Case(_text(400, "The request is malformed", 7400), DalError),
}


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "D1_RETRY_FIRST_WAIT_S", 0.0)


@pytest.mark.parametrize("name", list(CASES))
async def test_an_answer_is_the_right_error(place: Place, store: Store, name: str) -> None:
    case = CASES[name]
    for call, match in (
        (store.read(Count("users")), "SELECT"),
        (store.commit([Insert("users", rows.user(1))]), "users"),
    ):
        before = place.engine.requests(place.database)
        place.faults({"match": match, "count": 100, **case.fault})
        with pytest.raises(DalError) as caught:
            await call
        asked = place.engine.requests(place.database) - before
        place.faults()
        assert type(caught.value) is case.error, caught.value
        assert caught.value.backend == "d1"
        assert place.database.token not in f"{caught.value!r} {caught.value.__cause__!r}"
        assert str(case.fault.get("message", "no message")) not in str(caught.value)
        if match == "SELECT":
            assert caught.value.outcome == "not_applied", "a read writes nothing"
            assert asked == case.tries
    # Nothing of the answers that came before the commit was carried out, and D1 says so once it can be asked.
    assert await store.read(Count("users")) == [(0,)]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.outcome == "unknown"])
async def test_a_write_whose_fate_nobody_tells_is_unknown(place: Place, store: Store, name: str) -> None:
    place.faults({"match": "dal_commits", "count": 100, **CASES[name].fault})
    with pytest.raises(DalTimeoutError) as caught:
        await store.commit([Insert("users", rows.user(1))])
    assert caught.value.outcome == "unknown"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.tries > 1])
async def test_what_passes_is_ridden_out(place: Place, store: Store, name: str) -> None:
    for match in ("SELECT", "INSERT"):
        place.faults({"match": match, "count": RETRY_ATTEMPTS - 1, **CASES[name].fault})
        if match == "SELECT":
            assert await store.read(Count("users")) == [(0,)]
        else:
            assert (await store.commit([Insert("users", rows.user(1))])).counts == (1,)


async def test_an_api_that_is_not_there_is_said_and_nothing_was_written(place: Place) -> None:
    settings = Settings(d1_api_base="http://127.0.0.1:9/client/v4", d1_api_token=place.database.token)
    store = create_store(place.database.url, settings=settings)
    with pytest.raises(DalTimeoutError, match="no connection to the API") as caught:
        await store.open()
    assert caught.value.outcome == "not_applied"


async def test_a_wrong_token_is_named_by_its_variable_and_not_shown(place: Place) -> None:
    settings = Settings(d1_api_base=place.database.base, d1_api_token="wr0ng-t0ken")
    store = create_store(place.database.url, settings=settings)
    with pytest.raises(ConfigurationError, match="D1_API_TOKEN") as caught:
        await store.open()
    assert "wr0ng" not in str(caught.value)


async def test_the_token_is_in_no_log_and_no_repr(place: Place, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    place.faults({"drop": True}, {"status": 429, "count": 1})
    await store.read(Count("users"))
    transport = D1Transport(D1Address(place.database.base, "a", "d"), place.database.token)
    said = "\n".join([caplog.text, repr(transport), repr(store), repr(vars(place.settings))])
    assert place.database.token not in said


async def test_a_dropped_engine_comes_back_and_work_goes_on(own_d1: object, d1_schema: list[str]) -> None:
    from tests.d1.conftest import new_place
    from tests.engines.d1 import D1Engine

    assert isinstance(own_d1, D1Engine)
    place = new_place(own_d1, d1_schema)
    store = place.store()
    await store.open()
    await store.commit([Insert("users", rows.user(1))])
    own_d1.kill()
    own_d1.start()
    assert await store.read(Count("users")) == [(1,)]
    await store.commit([Insert("users", rows.user(2))])
    await store.close()


async def test_a_silent_server_is_given_up(place: Place) -> None:
    """The client's own timeout; here it is short, in earnest it is D1's limit for a statement and a little more."""
    client = httpx.AsyncClient(timeout=0.05, headers={"authorization": f"Bearer {place.database.token}"})
    database = place.database
    transport = D1Transport(D1Address(database.base, database.account, database.id), database.token, client=client)
    await transport.open()
    place.faults({"when": "before", "delay_ms": 2000, "count": 100})
    reader = executor.D1Executor(transport, "d1://a/b")
    with pytest.raises(DalTimeoutError, match="the answer was lost"):
        await reader.read([Entry("SELECT 1", ())])
    await transport.close()


async def test_a_call_of_a_repository_is_one_request(place: Place, dal: DataAccess) -> None:
    user = await dal.users.create(clerk_id="c")
    await dal.chats.create("c", user_id=user.id)
    for name, call in {
        "add": lambda: dal.messages.add("c", "user", "hello"),
        "history": lambda: dal.messages.history("c"),
        "get": lambda: dal.users.get(user.id),
        "list": lambda: dal.chats.list(user_id=user.id),
        "search": lambda: dal.messages.search("hello"),
        "set": lambda: dal.memory.set(user.id, "t", "k", 1),
        "delete": lambda: dal.memory.delete(user.id, "t"),
        "update": lambda: dal.chats.update("c", title="t", expected_version=None),
        "touch": lambda: dal.users.touch(user.id),
        "record": lambda: dal.audit.record("x"),
    }.items():
        before = place.engine.requests(place.database)
        await call()  # type: ignore[no-untyped-call]
        assert place.engine.requests(place.database) - before == 1, name
