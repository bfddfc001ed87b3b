"""The kit as others meet it: from a bare installation, on a good store, on a broken one, and without pytest."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from dal.testing import FakeClock, memory_data_access

GOOD = '''
import dataclasses
import pytest_asyncio
from dal.backends.memory import MemoryStore
from dal.errors import UnsupportedError
from dal.ops import Search
from dal.testing import StoreConformance


class Plain(MemoryStore):
    """A store without search, as its capabilities say."""

    @property
    def capabilities(self):
        return dataclasses.replace(super().capabilities, search=False)

    async def read(self, query):
        if isinstance(query, Search):
            raise UnsupportedError("no search here")
        return await super().read(query)


class TestPlain(StoreConformance):
    @pytest_asyncio.fixture
    async def store(self):
        store = Plain()
        await store.open()
        yield store
        await store.close()
'''
BROKEN = GOOD.replace(
    "    async def read(self, query):",
    """    async def commit(self, ops):
        for op in ops:
            await super().commit([op])

    async def read(self, query):""",
)
FORGOTTEN = """
from dal.testing import StoreConformance


class TestNothing(StoreConformance):
    pass
"""


def run_kit(program: str, place: Path, *arguments: str) -> tuple[int, str]:
    """pytest on that program alone, in its own directory, with pytest-asyncio as it comes (strict)."""
    (place / "test_mine.py").write_text(program)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run([*command, "test_mine.py"], cwd=place, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout


def test_a_good_store_passes_and_what_it_cannot_do_is_skipped(tmp_path: Path) -> None:
    code, output = run_kit(GOOD, tmp_path, "-rs", "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function")
    assert code == 0, output[-2000:]
    assert "capabilities.search is False" in output


def test_a_store_that_writes_half_a_batch_fails_and_the_assertion_is_shown(tmp_path: Path) -> None:
    code, output = run_kit(BROKEN, tmp_path, "-k", "a_refused_batch_leaves_no_row")
    assert code == 1
    assert "passed" not in output.splitlines()[-1]
    assert "refused at" in output


def test_a_forgotten_fixture_is_said(tmp_path: Path) -> None:
    code, output = run_kit(FORGOTTEN, tmp_path, "-x")
    assert code == 1
    assert "override the fixture `store`" in output


def test_without_pytest_the_kit_says_what_it_needs() -> None:
    program = "import sys; sys.modules['pytest'] = None; import dal.testing"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ImportError: dal.testing needs pytest and pytest-asyncio: pip install" in done.stderr


async def test_an_application_gets_a_store_whose_clock_and_ids_are_its_own() -> None:
    async def told() -> list[str]:
        clock = FakeClock()
        async with memory_data_access(clock=clock) as dal:
            user = await dal.users.create(name="Ada")
            await dal.memory.set(user.id, "t", "k", "v", ttl=60)
            clock.advance(60)
            assert await dal.memory.get(user.id, "t", "k") is None
            later = await dal.users.create()
            assert later.created_at - user.created_at == timedelta(seconds=60)
            assert later.id > user.id
            return [user.model_dump_json(), later.model_dump_json()]

    assert await told() == await told()
    async with memory_data_access() as dal:
        assert (await dal.users.list()).items == []
