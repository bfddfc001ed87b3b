"""`python -m tests.blobs.life`: histories of a local blob store in processes that kill themselves at a named point.

A step is a function of its number and the seed, so that what must be there is known: `state` plays it in a dict.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

from dal.backends.file import faults as file_faults
from dal.blobs.local import LocalBlobStore, faults
from dal.testing.blobs.data import content
from tests.fault.killer import serve

KEYS = [f"k/{number}" for number in range(5)]


async def take(store: LocalBlobStore, seed: int, number: int) -> None:
    """One step: it is there whole, or not at all."""
    dice, key, other, data = _dice(seed, number)
    match dice.randrange(6):
        case 0:
            await store.put(key, data)
        case 1:
            await store.put(key, _stream(data))
        case 2:
            await store.put(f"new/{number}", data, if_absent=True)
        case 3:
            await store.delete([key])
        case 4:
            if await store.head(key) is not None:
                await store.copy(key, other)
        case _:
            upload_id = await store.start_parts(key)
            half = len(data) // 2
            second = await store.put_part(key, upload_id, 2, data[half:], size=len(data) - half)
            first = await store.put_part(key, upload_id, 1, data[:half], size=half)
            if dice.random() < 0.2:
                await store.abort_parts(key, upload_id)
            else:
                await store.complete_parts(key, upload_id, [first, second])


def state(seed: int, steps: int) -> dict[str, bytes]:
    """What is there after so many steps."""
    blobs: dict[str, bytes] = {}
    for number in range(steps):
        dice, key, other, data = _dice(seed, number)
        match dice.randrange(6):
            case 0 | 1:
                blobs[key] = data
            case 2:
                blobs[f"new/{number}"] = data
            case 3:
                blobs.pop(key, None)
            case 4:
                if key in blobs:
                    blobs[other] = blobs[key]
            case _:
                if dice.random() >= 0.2:
                    blobs[key] = data
    return blobs


def _dice(seed: int, number: int) -> tuple[random.Random, str, str, bytes]:
    dice = random.Random(f"{seed} {number}")
    size = dice.choice((2, 10, 5_000, 1_100_000))
    return dice, dice.choice(KEYS), dice.choice(KEYS), content(size, number)


async def _stream(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


async def _live(directory: str, seed: int, steps: int, acknowledged: int) -> None:
    faults.hook = file_faults.hook  # the killer armed that one
    store = LocalBlobStore(Path(directory))
    await store.open()
    for number in range(steps):
        await take(store, seed, number)
        os.write(acknowledged, b"%d\n" % (number + 1))
    await store.close()


if __name__ == "__main__":
    serve(_live)
