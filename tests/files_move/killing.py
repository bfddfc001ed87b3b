"""A mover that dies by SIGKILL: before a given request to the target, or at a random moment; and what it has sent.

    python -m tests.files_move.killing DIRECTORY SEED

Each life is a forked process that moves the same large blob and some small ones between two directories. Before every
other request a move into an empty target is killed, and another one ends it; then one target sees life after life,
each killed shortly behind a few more parts, until one ends. One line of JSON says of each target what was sent, and
what is there.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from dal.backends.memory import MemoryStore
from dal.blobs.base import Data, Part
from dal.blobs.local import LocalBlobStore
from dal.files_move import resuming, throttle, transfer
from dal.files_move.moving import move
from dal.files_move.options import MoveOptions
from tests.files.killing import Fate, forked

PART_BYTES = 1024 * 1024
LARGE_BYTES = 8 * PART_BYTES + 12_345
SMALL = 5
AT_ONCE = 2
RANDOM_LIVES = 100  # at most; far fewer do
_STRIDE = 2
_REQUESTS = ("put", "get", "delete", "start_parts", "put_part", "list_parts", "complete_parts", "abort_parts")


class PartsFate(Fate):
    """Ends the process so many seconds after it has begun to send so many parts."""

    def __init__(self, parts: int, delay_s: float) -> None:
        super().__init__(None)
        self._left = parts
        self._delay_s = delay_s

    def sends(self) -> None:
        self._left -= 1
        if self._left == 0:
            threading.Timer(self._delay_s, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()


class MortalTarget(LocalBlobStore):
    """A directory whose requests are steps; what is sent in parts is counted in a file, whoever dies."""

    def __init__(self, root: Path, fate: Fate) -> None:
        super().__init__(root)
        self.capabilities = replace(self.capabilities, backend="far")  # else it would take blobs whole
        self._fate = fate
        self._ledger = os.open(f"{root}.sent", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __getattribute__(self, name: str) -> Any:
        if name in _REQUESTS:
            super().__getattribute__("_fate").step()
        return super().__getattribute__(name)

    async def put_part(self, key: str, upload_id: str, number: int, data: Data, *, size: int) -> Part:
        os.write(self._ledger, b"%d\n" % size)
        if isinstance(self._fate, PartsFate):
            self._fate.sends()
        return await super().put_part(key, upload_id, number, data, size=size)


async def live(place: Path, target: Path, fate: Fate) -> dict[str, int]:
    """One move, as far as it comes."""
    source, into, rows = LocalBlobStore(place / "source"), MortalTarget(target, fate), MemoryStore()
    for store in (source, into, rows):
        await store.open()
    report = await move(source, into, rows, options=MoveOptions(jobs=2))
    assert report.is_clean, report.problems
    return {"copied": report.copied, "there": report.there}


async def look(place: Path, target: Path) -> dict[str, object]:
    """Whether the target holds what the source holds, and nothing else."""
    source, into = LocalBlobStore(place / "source"), LocalBlobStore(target)
    await source.open()
    await into.open()
    keys = [info.key async for info in into.list()]
    same = keys == [info.key async for info in source.list()]
    for key in keys:
        same = same and await (await source.get(key)).read() == await (await into.get(key)).read()
    left = [upload.key async for upload in into.list_uploads()]
    return {"same": same, "left": left}


def sent_into(target: Path) -> int:
    """Bytes of parts, by all lives; counted anew from here on."""
    ledger = Path(f"{target}.sent")
    sent = sum(map(int, ledger.read_text().split()))
    ledger.unlink()
    return sent


async def fill(place: Path, dice: random.Random) -> None:
    source = LocalBlobStore(place / "source")
    await source.open()
    await source.put("files/large", dice.randbytes(LARGE_BYTES))
    for number in range(SMALL):
        await source.put(f"files/{number}", dice.randbytes(1000))


def tell(**found: object) -> None:
    print(json.dumps(found), flush=True)


def main(place: Path, seed: int) -> None:
    transfer.CONTENTS_PARTS_BYTES = resuming.S3_PART_BYTES = PART_BYTES  # type: ignore[attr-defined]
    resuming.CONTENTS_NOTE_S = 0.0  # type: ignore[attr-defined]
    throttle.CONTENTS_PARTS_AT_ONCE = AT_ONCE  # type: ignore[attr-defined]
    dice = random.Random(seed)
    assert forked(lambda: fill(place, dice))[0] == 0
    step, code, target = dice.randrange(_STRIDE), -signal.SIGKILL, place / "target"
    while code == -signal.SIGKILL:
        code, _ = forked(lambda: live(place, target, Fate(step)))  # noqa: B023  # it runs before the next turn
        ended, said = forked(lambda: live(place, target, Fate(None)))
        _, seen = forked(lambda: look(place, target))
        tell(step=step, code=code, ended=ended, said=said, sent=sent_into(target), **json.loads(seen))
        shutil.rmtree(target)
        step += _STRIDE

    deaths, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL and deaths < RANDOM_LIVES:
        # A move that began anew each time would never come to its end.
        fate = PartsFate(dice.randint(1, 4), dice.uniform(0.0, 0.005))
        code, said = forked(lambda: live(place, target, fate))  # noqa: B023
        deaths += code == -signal.SIGKILL
    _, seen = forked(lambda: look(place, target))
    tell(deaths=deaths, code=code, said=said, sent=sent_into(target), **json.loads(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
