"""What a test that takes far too long is waiting for, printed before it is ended.

pytest-timeout shows the stacks of the threads; in a test of coroutines that is the event loop and tells nothing. So the
tasks of the loop are shown first, each with the chain of what it awaits.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import traceback
from collections.abc import Generator
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import TextIO

#: What ending a test that was told to end may take, in seconds, before it is told again.
AGAIN_S = 60.0


def show_tasks_first() -> None:
    """Puts itself before the handler of the alarm that is set, which ends the test, and may have to do so twice."""
    ends_test = signal.getsignal(signal.SIGALRM)

    def alarmed(number: int, frame: FrameType | None) -> None:
        show_tasks(sys.stderr)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        if callable(ends_test):
            ends_test(number, frame)

    signal.signal(signal.SIGALRM, alarmed)


def show_tasks(out: TextIO) -> None:
    """The tasks of the loop that is running in this thread, with where each waits, outermost first."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return  # no loop is running: the stacks of the threads say all
    for task in tasks:
        out.write(f"\n{task!r}\n")
        for frame in _awaited(task.get_coro()):
            out.writelines(traceback.StackSummary.extract([(frame, frame.f_lineno)]).format())


def _awaited(step: object) -> Generator[FrameType, None, None]:
    """The frames from a task's own down to the innermost it awaits; `Task.get_stack` knows the first alone."""
    frame: FrameType | None
    while True:
        if isinstance(step, CoroutineType):
            frame, step = step.cr_frame, step.cr_await
        elif isinstance(step, AsyncGeneratorType):
            frame, step = step.ag_frame, step.ag_await
        elif isinstance(step, GeneratorType):
            frame, step = step.gi_frame, step.gi_yieldfrom
        else:  # a future, which ends the chain, or the step of an asynchronous generator, which refers to that
            step = next((held for held in gc.get_referents(step) if isinstance(held, AsyncGeneratorType)), None)
            if step is None:
                return
            continue
        if frame is None:
            return
        yield frame
