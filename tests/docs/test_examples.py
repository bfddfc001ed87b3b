"""Every file of examples/ runs, in a directory of its own, and does what it shows."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from dal.config import Settings
from tests.docs.pages import ROOT

EXAMPLES = ROOT / "examples"
STORES = ("file", "sqlite", "memory", "postgresql")
PYTEST = (
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "-c",
    os.devnull,
    "-o",
    "asyncio_default_fixture_loop_scope=function",
)


@pytest.fixture(params=STORES)
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment names one empty store after the other."""
    kind: str = request.param
    for variable in map(str.upper, Settings.model_fields):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_STORAGE_TYPE", kind)
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_server").create_database()
        monkeypatch.setenv("DATABASE_URL", url)
        subprocess.run([sys.executable, "-m", "dal.cli", "schema", "up"], check=True, capture_output=True, timeout=60)
    return kind


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_quickstart_prints_the_conversation_the_hit_and_the_memory(storage: str) -> None:
    expected = (
        "1 user What is a difference engine?\n"
        "2 assistant A mechanical calculator, designed by Babbage.\n"
        "found 2 A mechanical calculator, designed by Babbage.\n"
        "tone: brief\n"
    )
    assert run(EXAMPLES / "quickstart.py") == expected
    assert run(EXAMPLES / "quickstart.py") == expected  # again, on the store as it is now


def test_transaction_with_retry_loses_no_point(storage: str) -> None:
    assert run(EXAMPLES / "transaction_with_retry.py") == "Ada 10\nBob 190\nrefused: 4 not enough points\n"


def test_metrics_counts_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = run(EXAMPLES / "metrics.py").splitlines()
    assert [line.partition(" longest")[0] for line in lines] == [
        "memory commit ok chat_sessions calls: 2",
        "memory read ok messages calls: 50",
    ]


def test_custom_backend_passes_the_conformance_kit() -> None:
    printed = run(*PYTEST, "--rootdir", EXAMPLES, EXAMPLES / "test_custom_backend.py")
    assert " passed" in printed.splitlines()[-1]


def test_the_conformance_kit_finds_a_broken_custom_backend(tmp_path: Path) -> None:
    for name in ("custom_backend.py", "custom_backend_log.py", "test_custom_backend.py"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    store = tmp_path / "custom_backend.py"
    kept = "self.log.append(recorder.batches)"
    assert kept in store.read_text()
    store.write_text(store.read_text().replace(kept, "pass"))
    with pytest.raises(AssertionError, match="1 failed"):
        run(*PYTEST, "--rootdir", tmp_path, "-k", "opened_again", tmp_path / "test_custom_backend.py")


@pytest.fixture
def service(storage: str) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("fastapi_service", EXAMPLES / "fastapi_service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fastapi_service"] = module  # FastAPI looks annotations up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fastapi_service"]


async def test_fastapi_service_serves_a_chat(service: ModuleType) -> None:
    app = service.app
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        assert (await client.get("/health")).json()["status"] == "ok"
        assert (await client.post("/chats/c-1")).status_code == 201
        assert (await client.post("/chats/c-1")).status_code == 409
        for number in range(1, 4):
            message = {"role": "user", "content": f"message {number}"}
            answer = await client.post("/chats/c-1/messages", json=message)
            assert answer.status_code == 201
            assert answer.json()["sequence_number"] == number
        found = (await client.get("/chats/c-1/messages", params={"limit": 2})).json()
        assert [message["content"] for message in found] == ["message 2", "message 3"]
        assert (await client.get("/chats/none/messages")).status_code == 404
        refused = await client.post("/chats/c-1/messages", json={"role": "user", "content": "\0"})
        assert refused.status_code == 422
        assert "U+0000" in refused.json()["error"]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        health = await client.get("/health")  # the application has shut down
        assert health.status_code == 503
        assert health.json()["status"] == "down"


async def test_files_service_takes_shares_and_serves_files(
    storage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BLOB_URL", f"file:{tmp_path}/blobs")
    monkeypatch.setenv("FILE_QUOTA_BYTES", "3000000")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    app = importlib.import_module("files_service").app
    data = bytes(range(256)) * 8000
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        ada = (await app.state.dal.users.create()).id
        answer = await client.put("/files/größe.bin", content=data, headers={"x-user": ada})
        assert answer.status_code == 201
        file = f"/files/{answer.json()['id']}"
        served = await client.get(file, headers={"x-user": ada})
        assert served.content == data
        assert served.headers["x-content-type-options"] == "nosniff"
        assert served.headers["content-disposition"] == "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.bin"
        assert (await client.get(file)).status_code == 404
        token = (await client.post(f"{file}/link", headers={"x-user": ada})).json()
        assert (await client.get(file, params={"token": token})).content == data
        assert (await client.put("/files/more", content=data, headers={"x-user": ada})).status_code == 507
        assert (await client.put("/files/a", content=b"x")).status_code >= 400
        assert len((await app.state.dal.files.access_log(action="open")).items) == 3
    del sys.modules["files_service"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_has_its_test(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60
    assert path.stem in Path(__file__).read_text(), "no test of this file runs it"
