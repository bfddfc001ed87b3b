"""What cannot be opened: which error it is, the same for every backend, and which backend and operation it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dal import ConfigurationError, DalError, SchemaError, create_data_access
from dal.factory import create_store
from tests.engines import postgres
from tests.engines.d1 import D1Engine


@pytest.fixture(params=["file", "sqlite", "postgresql", "d1"])
def bare(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """A backend, and the address of a place of it that holds no schema."""
    backend: str = request.param
    if backend == "postgresql":
        server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
        url = server.create_database()
        yield backend, url
        server.drop_database(url)
    elif backend == "d1":
        engine: D1Engine = request.getfixturevalue("d1_engine")
        database = engine.create_database()
        for name, value in database.environment.items():
            monkeypatch.setenv(name, value)
        yield backend, database.url
    else:
        (tmp_path / "empty").mkdir() if backend == "file" else (tmp_path / "empty").touch()
        yield backend, f"{backend}://{tmp_path / 'empty'}"


async def test_a_store_without_schema_is_refused_with_its_backend_and_what_was_tried(bare: tuple[str, str]) -> None:
    backend, url = bare
    store = create_store(url, auto_migrate=False)
    with pytest.raises(SchemaError, match="dal schema up") as caught:
        await store.open()
    assert (caught.value.backend, caught.value.operation) == (backend, "open")
    assert not caught.value.retryable


def _below_a_file(directory: Path) -> Path:
    (directory / "taken").write_text("not ours")
    return directory / "taken" / "store"


def _in_a_loop(directory: Path) -> Path:
    (directory / "loop").symlink_to("loop")
    return directory / "loop" / "store"


def _where_nobody_makes_directories(directory: Path) -> Path:
    if not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")
    return Path("/proc/no/store")


def _with_a_name_too_long(directory: Path) -> Path:
    return directory / ("n" * 300) / "store"


@pytest.mark.parametrize("kind", ["file", "sqlite", "contents"])
@pytest.mark.parametrize(
    "place",
    [_below_a_file, _in_a_loop, _where_nobody_makes_directories, _with_a_name_too_long],
    ids=lambda place: place.__name__.strip("_"),
)
async def test_a_place_that_cannot_be_made_is_a_wrong_setting(kind: str, place: object, tmp_path: Path) -> None:
    assert callable(place)
    path = place(tmp_path)
    if kind == "contents":
        dal = create_data_access("memory://", blob_url=f"file://{path}")
    else:
        dal = create_data_access(f"{kind}://{path}")
    with pytest.raises(DalError) as caught:
        await dal.open()
    assert isinstance(caught.value, ConfigurationError), caught.value
    assert str(path) in caught.value.message
    assert not caught.value.retryable


@pytest.mark.parametrize("kind", ["file", "contents"])
async def test_a_link_to_nowhere_is_a_wrong_setting(kind: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    url = f"file://{tmp_path / 'link'}"
    dal = create_data_access(url) if kind == "file" else create_data_access("memory://", blob_url=url)
    with pytest.raises(ConfigurationError, match="link"):
        await dal.open()
