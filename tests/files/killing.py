"""A program that works on files and dies by SIGKILL: before a given request to either store, or at a random moment.

    python -m tests.files.killing DIRECTORY SEED

Each life is a forked process. After each death another one looks at what is left and sweeps it, and one line of JSON
says what it saw.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from dal import DalError, DataAccess
from dal.blobs.local import LocalBlobStore
from dal.factory import create_store
from dal.files.options import FileOptions
from dal.layers.retry import Retry
from dal.ops import Compare, Op, Receipt, Select, Sum
from dal.values import now
from tests.files.test_upload import content, pieces

# What every life would import for itself.
for module in ("aiosqlite", "dal.backends.sqlite", "dal.blobs.local.store", "filetype", "zstandard", "tenacity"):
    importlib.import_module(module)

RANDOM_DEATHS = 20
_STRIDE = 2  # a run dies at every other request, from the first or the second on
_REQUESTS = ("put", "delete", "copy", "start_parts", "put_part", "complete_parts", "abort_parts")


class Fate:
    """Ends the process before its n-th request; counts them."""

    def __init__(self, last: int | None) -> None:
        self.count = 0
        self._last = last

    def step(self) -> None:
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


class RandomFate(Fate):
    """Ends the process so many seconds after its first request."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(None)
        self._delay_s = delay_s

    def step(self) -> None:
        if self.count == 0:
            threading.Timer(self._delay_s, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        super().step()


class MortalBlobs(LocalBlobStore):
    """A local store whose requests are steps."""

    def __init__(self, root: Path, fate: Fate) -> None:
        super().__init__(root)
        self._fate = fate

    def __getattribute__(self, name: str) -> Any:
        if name in _REQUESTS:
            super().__getattribute__("_fate").step()
        return super().__getattribute__(name)


def open_access(place: Path, fate: Fate, *, ahead: timedelta = timedelta(0), **options: Any) -> DataAccess:
    store = create_store(f"sqlite:{place}/rows.db")
    commit = store.commit

    async def mortal(ops: Sequence[Op]) -> Receipt:
        fate.step()
        return await commit(ops)

    store.commit = mortal  # type: ignore[method-assign]
    return DataAccess(
        Retry(store),
        clock=lambda: now() + ahead,
        blobs=MortalBlobs(place / "blobs", fate),
        files=FileOptions(**options),
    )


async def live(place: Path, user: str, fate: Fate) -> None:
    """One life: some of everything. A file's name says what it holds."""

    async def slow(size: int) -> AsyncIterator[bytes]:
        async for piece in pieces(content(size)):
            fate.step() if piece[:1] == b"\1" else None
            yield piece

    async with open_access(place, fate, retention_s=0.0) as dal:
        small = await dal.files.upload(user, "1000", content(1000))
        large = await dal.files.upload(user, "1200000", slow(1_200_000))
        await dal.files.copy(large.id)
        upload = await dal.files.start_upload(user, "3000", total_size=3000, part_size=2000)
        await dal.files.upload_part(upload.upload_id, 2, content(3000)[2000:])
        await dal.files.upload_part(upload.upload_id, 1, content(3000)[:2000])
        await dal.files.complete_upload(upload.upload_id)
        upload = await dal.files.start_upload(user, "2000")
        await dal.files.upload_part(upload.upload_id, 1, content(2000))
        await dal.files.abort_upload(upload.upload_id)
        await dal.files.delete(small.id)
        await dal.files.restore(small.id)
        await dal.files.delete(large.id)
        await dal.files.sweep()
    async with open_access(place, fate, retention_s=0.0, deduplicate=True, compress=True) as dal:
        first = await dal.files.upload(user, "5000", content(5000))
        second = await dal.files.upload(user, "5000", slow(5000))
        await dal.files.delete(first.id)
        await dal.files.delete(second.id)
        await dal.files.sweep()


async def look(place: Path, user: str) -> dict[str, object]:
    """What is left: every file whole, the counters their sum; and after a sweep, when all is over, nothing else."""
    fate = Fate(None)
    async with open_access(place, fate) as dal:
        await whole(dal, user)
        await same_sums(dal, user)
    async with open_access(place, fate, ahead=timedelta(days=2), retention_s=0.0) as dal:
        report = await dal.files.sweep()
        files = await whole(dal, user)
        await same_sums(dal, user)
        left = sorted([blob.key async for blob in blobs_of(dal).list()])
        rows = await dal.store.read(Select("files", columns=("storage_key",)))
        wanted = sorted({str(key).partition("@")[0] for (key,) in rows})
        assert left == wanted, (left, wanted)
        assert (report.missing_files, report.corrected_quotas, report.corrected_counts) == (0, 0, 0), report
        assert report.problems == [], report
        quota = await dal.files.quota(user)
        assert (quota.reserved_bytes, quota.reserved_files) == (0, 0), quota
        again = await dal.files.sweep()
        assert again.model_dump(exclude_defaults=True) == {}, again
    return {"files": files, "swept": report.model_dump(exclude_defaults=True)}


def blobs_of(dal: DataAccess) -> LocalBlobStore:
    blobs = dal.files._core.blobs
    assert isinstance(blobs, LocalBlobStore)
    return blobs


async def whole(dal: DataAccess, user: str) -> int:
    page = await dal.files.list(user_id=user, limit=1000)
    for file in page.items:
        data = await dal.files.read(file.id, verify=True)
        assert data == content(int(file.filename)), file
    return len(page.items)


async def same_sums(dal: DataAccess, user: str) -> None:
    mine = Compare("user_id", "=", user)
    here = (mine, Compare("status", "!=", "deleted"))
    under_way = (mine, Compare("status", "in", ("active", "storing")))
    [(stored,)] = await dal.store.read(Sum("files", "file_size", here))
    files = len(await dal.store.read(Select("files", here, columns=("id",))))
    [(reserved,)] = await dal.store.read(Sum("multipart_uploads", "reserved_bytes", under_way))
    uploads = len(await dal.store.read(Select("multipart_uploads", under_way, columns=("id",))))
    quota = await dal.files.quota(user)
    found = (quota.used_bytes, quota.used_files, quota.reserved_bytes, quota.reserved_files)
    assert found == (stored, files, reserved, uploads), (found, stored, files, reserved, uploads)


def forked(work: Callable[[], Awaitable[object]]) -> tuple[int, str]:
    """The work in a process of its own: how it ended (minus the signal), and what it printed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        code = 1
        try:
            answer: object = asyncio.run(work())  # type: ignore[arg-type]  # a coroutine function
            os.write(write, json.dumps(answer).encode())
            code = 0
        except (AssertionError, DalError) as error:
            os.write(write, json.dumps(repr(error)).encode())
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said


def main(place: Path, seed: int) -> None:
    dice = random.Random(seed)

    async def begin() -> str:
        async with open_access(place, Fate(None)) as dal:
            return (await dal.users.create(name="Ada")).id

    _, said = forked(begin)
    user = json.loads(said)
    step = dice.randrange(_STRIDE)
    while True:
        code, said = forked(lambda: live(place, user, Fate(step)))  # noqa: B023  # it runs before the next turn
        if code not in (0, -signal.SIGKILL):
            print(json.dumps({"step": step, "life": said}), flush=True)
            return
        seen, said = forked(lambda: look(place, user))
        print(json.dumps({"step": step, "code": code, "seen": seen, "found": json.loads(said)}), flush=True)
        if code == 0:
            break
        step += _STRIDE

    async def doomed(delay_s: float) -> None:
        fate = RandomFate(delay_s)
        while True:
            await live(place, user, fate)

    for deaths in range(RANDOM_DEATHS):
        code, said = forked(partial(doomed, dice.uniform(0.0, 0.3)))
        seen, said = forked(lambda: look(place, user))
        print(json.dumps({"death": deaths, "code": code, "seen": seen, "found": json.loads(said)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
