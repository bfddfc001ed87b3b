"""The kit as others meet it: one fixture, a good store passes, broken ones are found, what is lacking is skipped."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.test_kit import run_kit

GOOD = """
import dataclasses
import pytest_asyncio
from dal.blobs.memory import MemoryBlobStore
from dal.testing import BlobStoreConformance


class Mine(MemoryBlobStore):
    pass


class TestMine(BlobStoreConformance):
    @pytest_asyncio.fixture
    async def store(self):
        store = Mine()
        await store.open()
        yield store
        await store.close()
"""
#: What is broken, and the test that must say so.
BROKEN = {
    "test_if_absent_never_replaces": """
    async def put(self, key, data, *, if_absent=False, **given):
        return await super().put(key, data, **given)
""",
    "test_what_differs_from_its_announcement_is_not_stored": """
    async def put(self, key, data, *, size=None, checksum=None, **given):
        return await super().put(key, data, **given)
""",
    "test_a_listing_is_in_the_order_of_bytes_from_any_place": """
    async def list(self, prefix="", *, after=""):
        for info in reversed([info async for info in super().list(prefix, after=after)]):
            yield info
""",
    "test_a_range_is_read_alone": """
    async def get(self, key, *, start=0, end=None):
        return await super().get(key, start=start, end=None if end is None else end + 1)
""",
    "test_an_aborted_upload_is_gone": """
    async def abort_parts(self, key, upload_id):
        pass
""",
    "test_parts_that_the_rules_forbid_are_refused": """
    async def complete_parts(self, key, upload_id, parts):
        parts = [part for part in parts if part.number < 9] or [await self.put_part(key, upload_id, 1, b"", size=0)]
        return await super().complete_parts(key, upload_id, parts[:1])
""",
}


def test_a_good_store_passes_and_what_it_cannot_do_is_skipped(tmp_path: Path) -> None:
    code, output = run_kit(GOOD, tmp_path, "-rs", "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function")
    assert code == 0, output[-2000:]
    assert "capabilities.presign is False" in output


def test_every_broken_store_is_found(tmp_path: Path) -> None:
    """All in one run: most of what it takes is pytest's own start."""
    store, kit = GOOD[GOOD.index("class Mine") : GOOD.index("class TestMine")], GOOD[GOOD.index("class TestMine") :]
    program, chosen = GOOD[: GOOD.index("class Mine")], []
    for number, (test, change) in enumerate(BROKEN.items()):
        program += (store.replace("    pass\n", change.lstrip("\n"), 1) + kit).replace("Mine", f"Mine{number}x")
        chosen.append(f"TestMine{number}x and {test}")
    code, output = run_kit(program, tmp_path, "-k", " or ".join(chosen))
    assert code == 1, output[-2000:]
    for number, test in enumerate(BROKEN):
        assert f"FAILED test_mine.py::TestMine{number}x::{test}" in output, output[-2000:]
    assert "passed" not in output.splitlines()[-1]


def test_a_forgotten_fixture_is_said(tmp_path: Path) -> None:
    forgotten = "from dal.testing import BlobStoreConformance\nclass TestNothing(BlobStoreConformance):\n    pass\n"
    code, output = run_kit(forgotten, tmp_path, "-x")
    assert code == 1
    assert "override the fixture `store`" in output
