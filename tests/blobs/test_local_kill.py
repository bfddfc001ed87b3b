"""kill -9 at every point of a local store's writing: a blob is there whole or not, and what is left goes by age."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dal.blobs.local
from dal.blobs.local import LocalBlobStore
from dal.testing.blobs.data import content, keys, read
from tests.blobs import life
from tests.fault.killer import Killer

STEPS = 30


def points() -> list[str]:
    """Every fault point in the local store's source."""
    sources = Path(dal.blobs.local.__file__).parent.glob("*.py")
    found = {point for source in sources for point in re.findall(r'faults\.reach\("([a-z.]+)"\)', source.read_text())}
    assert len(found) >= 9
    return sorted(found)


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    killer = Killer("tests.blobs.life")
    yield killer
    killer.close()


@pytest.mark.parametrize("point", points())
async def test_a_process_killed_here_leaves_whole_blobs_and_nothing_that_stays(
    point: str, tmp_path: Path, killer: Killer
) -> None:
    seed = random.randrange(2**32)
    print(f"{point}: seed {seed}")
    kills = 0
    for count in (1, 2, 3, 5):
        directory = tmp_path / str(count)
        acknowledged, was_killed = killer.run(directory, seed, point, count, STEPS)
        kills += was_killed
        done = max(acknowledged, 0)
        store = LocalBlobStore(directory)
        await store.open()
        found = {key: await read(store, key) for key in await keys(store)}
        assert found in (life.state(seed, done), life.state(seed, done + 1))
        assert (await store.head("k/0") is None) == ("k/0" not in found)
        # What was under way is no blob, is not taken from those who still write, and goes once it is old.
        for upload in [upload async for upload in store.list_uploads()]:
            await store.abort_parts(upload.key, upload.upload_id)
        await store.remove_leftovers()
        await store.remove_leftovers(older_than_s=-1)
        assert os.listdir(directory / "unfinished") == []
        assert os.listdir(directory / "uploads") == []
        assert sum(len(files) for _, _, files in os.walk(directory)) == len(found)
        await store.put("k/0", b"goes on")
        assert await read(store, "k/0") == b"goes on"
        await store.close()
    assert kills, "the test must reach its point"


async def test_an_upload_goes_on_in_another_process_where_one_was_killed(tmp_path: Path) -> None:
    part = content(300_000)
    program = f"""
import asyncio, os, signal, sys
from pathlib import Path
from dal.blobs.local import LocalBlobStore, faults
from dal.testing.blobs.data import content
async def main():
    store = LocalBlobStore(Path({str(tmp_path / "blobs")!r}))
    await store.open()
    upload_id = await store.start_parts("p/a", content_type="text/css")
    print(upload_id, flush=True)
    await store.put_part("p/a", upload_id, 2, content(300_000), size=300_000)
    faults.hook = lambda point: point == "blob.naming" and os.kill(os.getpid(), signal.SIGKILL)
    await store.put_part("p/a", upload_id, 1, b"first", size=5)
asyncio.run(main())
"""
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    upload_id = killed.stdout.strip()
    store = LocalBlobStore(tmp_path / "blobs")
    await store.open()
    (arrived,) = await store.list_parts("p/a", upload_id)
    assert (arrived.number, arrived.size) == (2, 300_000)
    first = await store.put_part("p/a", upload_id, 1, b"first", size=5)
    info = await store.complete_parts("p/a", upload_id, [first, arrived])
    assert info.content_type == "text/css"
    assert await read(store, "p/a") == b"first" + part
    await store.close()
