"""A store's moves' side that fails at random around its calls: the process dies, stops, waits, or loses an answer.

Between two calls of a mover lie all the moments at which its death matters, so kills here hit what kills from outside
would hit once in an hour.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final, cast

from dal.errors import UnavailableError
from dal.replica import Replica

#: Calls after which a switch of primaries is half done.
_DELICATE: Final = frozenset({"change_gate", "install", "backlog", "mark_checked", "rescan"})


class Faulty:
    """A Replica around another one.

    rate  how often a delicate call fails, 0 to 1; a tenth of it for others.
    Whoever supervises this process wakes it up when it has stopped.
    """

    def __init__(self, inner: Replica, dice: Random, rate: float) -> None:
        self._inner = inner
        self._dice = dice
        self._rate = rate

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method: Callable[..., Awaitable[Any]] = getattr(self._inner, name)
        rate = self._rate if name in _DELICATE else self._rate / 10

        async def call(*args: object, **kwargs: object) -> object:
            if self._dice.random() >= rate:
                return await method(*args, **kwargs)
            before = self._dice.random() < 0.5
            if before:
                await self._fail(name)
            result = await method(*args, **kwargs)
            if not before:
                await self._fail(name)
            return result

        return call

    async def _fail(self, name: str) -> None:
        kind = self._dice.choice(("die", "die", "stop", "wait", "lose"))
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif kind == "wait":
            await asyncio.sleep(self._dice.random() * 0.5)
        else:
            raise UnavailableError("the answer was lost (torture)", operation=name, outcome="unknown")


def faulty(inner: Replica, dice: Random, rate: float) -> Replica:
    return cast(Replica, Faulty(inner, dice, rate)) if rate else inner
