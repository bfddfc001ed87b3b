"""The companion Worker on D1's own binding: what it lets in, and what comes back exactly through it.

The whole contract runs through it elsewhere (tests/subjects.py); here is what only it has.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final, cast

import httpx
import pytest
import pytest_asyncio

from dal import ConfigurationError, ConflictError, DataAccess, MissingReferenceError, NewMessage
from dal.backends.d1 import executor
from dal.backends.d1.executor import D1Executor
from dal.backends.sql import SqlStore, Statement
from dal.config import Settings
from dal.errors import AlreadyExistsError
from dal.factory import create_store, schema_connection
from dal.limits import D1_MAX_VALUE_BYTES
from dal.ops import Count, Guard, Insert, Select, Update
from dal.store import Store
from dal.testing import FakeClock, rows, sequential_ids
from dal.testing.nasty import TEXTS
from tests.engines import honesty
from tests.engines.d1_worker import SOURCE, D1WorkerEngine
from tests.engines.postgres import EngineMissingError
from tests.engines.wrangler import dry_run

_ONE: Final = '{"sql": "SELECT 1"}'
_TOO_LARGE: Final = b" " * (33 * 1024 * 1024)
_NASTY: Final = Path(__file__).parents[3] / "shared" / "data" / "nasty" / "nasty.json"


@pytest.fixture
def engine(d1_worker_engine: D1WorkerEngine, d1_schema: list[str]) -> D1WorkerEngine:
    d1_worker_engine.clean(d1_schema)
    return d1_worker_engine


@pytest_asyncio.fixture
async def store(engine: D1WorkerEngine) -> AsyncIterator[Store]:
    made = create_store(engine.store_url, settings=engine.settings)
    await made.open()
    yield made
    await made.close()


# What it lets in -----------------------------------------------------------------------------------------------------


def _post(engine: D1WorkerEngine, body: str | bytes | Iterator[bytes], **changes: str) -> tuple[int, int]:
    """Status and code of the answer to this body, at another path or with another token where they are given."""
    token = changes.get("authorization", f"Bearer {engine.token}")
    found, _, other = changes.get("path", "").partition(" ")
    answer = httpx.request(
        changes.get("method", "POST"),
        engine.raw.replace(found, other) if found else engine.raw,
        content=body,
        headers={"authorization": token} if token else {},
        timeout=60,
    )
    said = answer.json()
    assert engine.token not in answer.text
    return answer.status_code, 0 if said["success"] else said["errors"][0]["code"]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Bearer undefined", "Basic {}", "{}"])
def test_nobody_comes_in_without_the_token(engine: D1WorkerEngine, authorization: str) -> None:
    assert _post(engine, _ONE, authorization=authorization.format(engine.token)) == (401, 10000)


def test_a_token_that_begins_or_ends_alike_is_wrong(engine: D1WorkerEngine) -> None:
    for token in (engine.token[:-1], engine.token + "0", engine.token.upper(), f"x{engine.token}"):
        assert _post(engine, _ONE, authorization=f"Bearer {token}") == (401, 10000)
    assert _post(engine, _ONE) == (200, 0)


def test_a_worker_that_was_given_no_token_lets_nobody_in() -> None:
    try:
        forgotten = D1WorkerEngine(has_token=False)
    except (EngineMissingError, OSError) as error:
        honesty.not_tested("d1-worker", str(error))
    try:
        for authorization in ("", "Bearer", "Bearer undefined", f"Bearer {forgotten.token}"):
            assert _post(forgotten, _ONE, authorization=authorization) == (401, 10000)
    finally:
        forgotten.close()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"path": "/raw /query"}, (404, 7404)),
        ({"path": "/raw /"}, (404, 7404)),
        ({"path": "/database/ /database/0"}, (404, 7404)),
        ({"method": "PUT"}, (405, 7001)),
    ],
)
def test_another_address_or_method_is_refused(
    engine: D1WorkerEngine, changes: dict[str, str], expected: tuple[int, int]
) -> None:
    assert _post(engine, _ONE, **changes) == expected


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "5",
        "null",
        '"SELECT 1"',
        "[]",
        "{}",
        '{"sql": 1}',
        '{"sql": "SELECT ?", "params": "1"}',
        '{"sql": "SELECT ?", "params": [{}]}',
        '{"batch": []}',
        '{"batch": [null]}',
        b'{"sql": "SELECT \xff"',
    ],
)
def test_a_body_that_means_nothing_is_refused(engine: D1WorkerEngine, body: str | bytes) -> None:
    assert _post(engine, body) == (400, 7400)


def test_a_body_too_large_is_refused_whether_it_says_its_size_or_not(engine: D1WorkerEngine) -> None:
    assert _post(engine, _TOO_LARGE) == (413, 7400)
    pieces = (_TOO_LARGE[:1_000_000] for _ in range(len(_TOO_LARGE) // 1_000_000))
    assert _post(engine, pieces) == (413, 7400)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT nothing FROM nowhere", (400, 7500)),
        ("SELEKT", (400, 7500)),
        ("INSERT INTO dal_guard (ok) VALUES (0)", (400, 7500)),
        ("PRAGMA page_size = 512", (400, 7500)),
    ],
)
def test_what_sqlite_refuses_is_the_requests_fault(engine: D1WorkerEngine, sql: str, expected: tuple[int, int]) -> None:
    assert _post(engine, json.dumps({"sql": sql})) == expected


async def test_settings_that_do_not_fit_are_named_and_no_token_shown(engine: D1WorkerEngine) -> None:
    wrong = Settings(d1_worker_url=engine.url, d1_worker_token="wr0ng-t0ken")
    with pytest.raises(ConfigurationError, match="D1_WORKER_TOKEN") as caught:
        await create_store(engine.store_url, settings=wrong).open()
    assert "wr0ng" not in f"{caught.value} {caught.value.__cause__!r}"
    other = engine.store_url[:-1] + ("0" if engine.store_url[-1] != "0" else "1")
    with pytest.raises(ConfigurationError, match="no such account or database"):
        await create_store(other, settings=engine.settings).open()
    for half in (Settings(d1_worker_url=engine.url), Settings(d1_worker_token="t")):
        with pytest.raises(ConfigurationError, match="not set"):
            create_store("d1://a/d", settings=half)
    with pytest.raises(ConfigurationError, match="D1_WORKER_URL: must be https://HOST"):
        create_store("d1://a/d", settings=Settings(d1_worker_url="ftp://x", d1_worker_token="t"))


@pytest.mark.parametrize(
    ("url", "is_taken"),
    [
        ("https://dal-d1.example.workers.dev", True),
        ("http://dal-d1.example.workers.dev", False),
        ("http://8.8.8.8", False),
        ("http://localhost:8787", True),
        ("http://[::1]:8787", True),
        ("http://10.0.0.7:8787", True),
        ("http://worker:8787", True),
    ],
)
def test_a_token_is_sent_in_the_clear_to_private_networks_alone(url: str, is_taken: bool) -> None:
    """Cloudflare answers over http too, so that nobody would notice."""
    settings = Settings(d1_worker_url=url, d1_worker_token="t0ken")
    if is_taken:
        create_store("d1://a/d", settings=settings)
        return
    with pytest.raises(ConfigurationError, match="D1_WORKER_URL") as caught:
        create_store("d1://a/d", settings=settings)
    assert "t0ken" not in str(caught.value)


def test_migrating_goes_over_the_api_and_needs_its_token(engine: D1WorkerEngine) -> None:
    with pytest.raises(ConfigurationError, match="D1_API_TOKEN"):
        create_store(engine.store_url, settings=engine.settings, auto_migrate=True)
    with pytest.raises(ConfigurationError, match="D1_API_TOKEN"):
        schema_connection(engine.store_url, settings=engine.settings)


# What comes back through it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, -1, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)])
async def test_an_integer_arrives_as_the_integer_it_is(store: Store, number: int) -> None:
    statement = Statement("SELECT typeof(?) AS kind, CAST(? AS TEXT) AS text", [number] * 2, returns=True)
    assert await cast(SqlStore, store)._executor.fetch(statement) == [("integer", str(number))]


async def test_sizes_beyond_2_to_53_are_exact(store: Store) -> None:
    await store.commit([Insert("users", rows.user(1))])
    await store.commit([Insert("files", rows.file(2, 1, file_size=2**62 + 3))])
    changed = Update("files", {"id": rows.row_id(2)}, add={"file_size": 4}, returning=("file_size",))
    assert (await store.commit([changed])).rows == ((2**62 + 7,),)
    assert await store.read(Select("files", columns=("file_size",))) == [(2**62 + 7,)]


async def test_nasty_text_comes_back_as_it_went_in(store: Store) -> None:
    found = [entry["text"] for entry in json.loads(_NASTY.read_text("utf-8"))] if _NASTY.exists() else []
    texts = [
        text
        for text in [*found, *TEXTS.values()]
        if "\0" not in text and not any(0xD800 <= ord(character) <= 0xDFFF for character in text)
    ]
    async with DataAccess(store) as dal:
        await dal.chats.create("c")
        await dal.messages.add_many(
            "c", [NewMessage("user", text, metadata={"m": text, "l": [text]}) for text in texts]
        )
        back = [message async for message in dal.messages.iterate("c")]
    assert [message.content for message in back] == texts
    assert [message.metadata for message in back] == [{"m": text, "l": [text]} for text in texts]


async def test_a_row_at_the_limit_goes_through(store: Store) -> None:
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    text = '"\n' * (D1_MAX_VALUE_BYTES // 2 - 250)
    await store.commit([Insert("messages", rows.message(2, 1, content=text))])
    assert await store.read(Select("messages", columns=("content",))) == [(text,)]


async def test_a_refused_batch_leaves_no_row_and_says_why(store: Store) -> None:
    await store.commit([Insert("users", rows.user(1, clerk_id="taken"))])
    stale = Guard("users", {"id": rows.row_id(1)}, {"version": 7})
    for second, error in (
        (stale, ConflictError),
        (Insert("users", rows.user(3, clerk_id="taken")), AlreadyExistsError),
        (Insert("messages", rows.message(4, 5)), MissingReferenceError),
    ):
        with pytest.raises(error) as caught:
            await store.commit([Insert("users", rows.user(2)), second])
        assert caught.value.outcome == "not_applied"
    assert await store.read(Count("users")) == [(1,)]


# Lost answers and bookmarks ------------------------------------------------------------------------------------------


class Wire(httpx.AsyncBaseTransport):
    """The way to the Worker: it remembers what went over it, and loses the answers it is told to."""

    def __init__(self, loses: Callable[[int], bool]) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self._loses = loses
        self.sent: list[str | None] = []
        self.sessions: list[str] = []
        self.answered: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        number = len(self.sent)
        self.sent.append(request.headers.get("x-d1-bookmark"))
        answer = await self._inner.handle_async_request(request)
        await answer.aread()
        self.sessions.append(answer.headers["x-asked-session"])
        if self._loses(number):
            raise httpx.ReadError("lost", request=request)
        self.answered.append(answer.headers.get("x-d1-bookmark", ""))
        return answer

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _over(engine: D1WorkerEngine, loses: Callable[[int], bool] = lambda _: False) -> tuple[Store, Wire]:
    """A store whose requests go over a Wire, open."""
    wire = Wire(loses)
    store = create_store(engine.store_url, settings=engine.settings)
    transport = cast(D1Executor, cast(SqlStore, store)._executor).transport
    transport._given = httpx.AsyncClient(transport=wire, headers={"authorization": f"Bearer {engine.token}"})
    await store.open()
    return store, wire


@pytest.mark.parametrize("position", range(4))
async def test_a_lost_answer_stores_one_row_wherever_it_happens(
    engine: D1WorkerEngine, monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    monkeypatch.setattr(executor, "D1_RETRY_FIRST_WAIT_S", 0.0)
    lost: list[int] = []

    def loses(number: int) -> bool:
        if armed and number - armed[0] == position:
            lost.append(number)
        return bool(lost) and number == lost[0]

    armed: list[int] = []
    store, wire = await _over(engine, loses)
    async with DataAccess(store, clock=FakeClock(), new_id=sequential_ids()) as dal:
        await dal.chats.create("c")
        armed.append(len(wire.sent))
        added = [await dal.messages.add("c", "user", f"m{n}", expected_sequence=n + 1) for n in range(4)]
        assert await dal.messages.history("c") == added
        assert [message.sequence_number for message in added] == [1, 2, 3, 4]
    assert lost


async def test_a_client_sends_the_newest_bookmark_it_has_seen(engine: D1WorkerEngine) -> None:
    store, wire = await _over(engine)
    assert wire.sent[0] is None
    assert wire.sessions[0] == "first-primary"
    await store.commit([Insert("users", rows.user(1))])
    await store.read(Count("users"))
    assert wire.sent[-1] == wire.sessions[-1] == wire.answered[-2]
    assert wire.answered == sorted(wire.answered)
    assert wire.answered[-2] > wire.answered[0]
    await store.close()


async def test_an_older_bookmark_that_comes_late_does_not_replace_a_newer_one(engine: D1WorkerEngine) -> None:
    store, wire = await _over(engine)
    transport = cast(D1Executor, cast(SqlStore, store)._executor).transport
    answers = iter(["0000000b-0", "0000000a-0", "0000000a-f"])

    async def answer(request: httpx.Request) -> httpx.Response:
        wire.sent.append(request.headers.get("x-d1-bookmark"))
        return httpx.Response(200, headers={"x-d1-bookmark": next(answers)})

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    for _ in range(3):
        await transport._send(client, "POST", "http://worker", b"")
    assert wire.sent[-2:] == ["0000000b-0"] * 2
    await client.aclose()
    await store.close()


async def test_after_a_refusal_the_primary_is_asked_and_then_anyone(engine: D1WorkerEngine) -> None:
    """What refused a batch may be a state that this client's bookmark does not cover."""
    store, wire = await _over(engine)
    await store.commit([Insert("users", rows.user(1))])
    with pytest.raises(AlreadyExistsError):
        await store.commit([Insert("users", rows.user(1))])
    for _ in range(2):
        await store.read(Count("users"))
    assert wire.sessions[-2] == "first-primary"
    assert wire.sessions[-1] == wire.answered[-2]
    await store.close()


async def test_after_a_lost_answer_the_primary_is_asked(
    engine: D1WorkerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "D1_RETRY_FIRST_WAIT_S", 0.0)
    losing: set[int] = set()
    store, wire = await _over(engine, lambda number: number in losing)
    losing.add(len(wire.sent))
    await store.read(Count("users"))
    assert wire.sessions[-2] != "first-primary"
    assert wire.sessions[-1] == "first-primary"
    await store.close()


# The example as it is deployed ---------------------------------------------------------------------------------------


def test_wrangler_takes_the_example_as_it_stands(tmp_path: Path) -> None:
    try:
        said = dry_run(SOURCE, tmp_path)
    except EngineMissingError as error:
        honesty.not_tested("wrangler", str(error))
    assert "env.DB (my-database)" in said
    assert "env.DATABASE_ID" in said
    settings = tomllib.loads((SOURCE / "wrangler.toml").read_text())
    assert settings["vars"]["DATABASE_ID"] == settings["d1_databases"][0]["database_id"]
