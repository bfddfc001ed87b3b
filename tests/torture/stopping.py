"""How the supervisor asks a process of a run to stop: by SIGTERM, which waits until the process listens for it."""

from __future__ import annotations

import asyncio
import os
import signal

_ASKED = {signal.SIGTERM}


def fork() -> int:
    """As `os.fork`. A process that is asked to stop before it listens is told when it does, and does not die of it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
    return pid


def stopping() -> asyncio.Event:
    """Set when this process, which runs a loop, is asked to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
    return stop


def stopped() -> list[int]:
    """No longer empty when this process, which runs no loop of its own, is asked to stop."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
    return asked
