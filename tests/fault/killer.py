"""`python -m tests.fault.killer`: runs histories on file stores in processes that kill themselves at a named point.

Another module may give its own life: it is run the same way and calls `serve` with it.

Each line of standard input is an order: directory, seed, point, count, steps. A fork opens the store, goes on with the
history where it stands, and sends itself SIGKILL when the point is reached for the count-th time. The answer, one line,
is the last step it acknowledged (-1 for none) and how it ended: `killed` or `done`. Forking from one warm process makes
a kill cost some milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

from dal.backends.file import FileStore, faults, journal
from tests.fault import history

SEGMENT_BYTES = 3_000
Life = Callable[[str, int, int, int], Coroutine[None, None, None]]


class Killer:
    """The process that does the killing, and its orders."""

    def __init__(self, module: str = "tests.fault.killer") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, directory: Path, seed: int, point: str, count: int, steps: int) -> tuple[int, bool]:
        """The last acknowledged step, and whether the process was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(directory, seed, point, count, steps, file=self._process.stdin, flush=True)
        acknowledged, end = self._process.stdout.readline().split()
        assert end in ("killed", "done"), end
        return int(acknowledged), end == "killed"

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(point: str, count: int) -> None:
    """From now on this process dies when the point is reached for the count-th time."""
    left = count

    def hook(reached: str) -> None:
        nonlocal left
        if reached == point:
            left -= 1
            if left == 0:
                _die()

    faults.hook = hook
    if point != "torn":
        return

    def write_half(descriptor: int, data: bytes, offset: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.pwrite(descriptor, data[: max(1, len(data) * (count % 7) // 7)], offset)
            _die()
        os.pwrite(descriptor, data, offset)

    journal.write_all = write_half  # type: ignore[attr-defined]


async def _live(directory: str, seed: int, steps: int, acknowledged: int) -> None:
    store = FileStore(directory, segment_bytes=SEGMENT_BYTES)
    await store.open()
    number = await history.progress(store)
    if number < 0:
        await history.begin(store)
        number = 0
    os.write(acknowledged, b"%d\n" % number)
    for _ in range(steps):
        number += 1
        await history.take(store, seed, number)
        os.write(acknowledged, b"%d\n" % number)
    await store.close()


def _obey(live: Life, directory: str, seed: str, point: str, count: str, steps: str) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _arm(point, int(count))
            asyncio.run(live(directory, int(seed), int(steps), writing))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as ledger:
        lines = ledger.read().split()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        end = "killed"
    else:
        end = "done" if status == 0 else "failed"
    return f"{int(lines[-1]) if lines else -1} {end}"


def serve(live: Life) -> None:
    """Obeys the orders on standard input. live: directory, seed, steps, and where to tell each acknowledged step."""
    for order in sys.stdin:
        print(_obey(live, *order.split()), flush=True)


if __name__ == "__main__":
    serve(_live)
