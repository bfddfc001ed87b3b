"""From a command's coroutine to an exit code: opens the store, and turns errors into one clear line each.

DAL_DEBUG=1 in the environment shows the traceback as well.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, NoReturn

import typer

from dal.cli.output import end_quietly_when_nobody_reads, printable
from dal.errors import ConfigurationError, DalError, InvalidInputError

if TYPE_CHECKING:
    from dal.access import DataAccess

FAILED = 1
WRONG_USAGE = 2
UNFINISHED = 3  # nothing was found so far, and not everything was looked at
INTERRUPTED = 130
TERMINATED = 143


def with_store(url: str | None, work: Callable[[DataAccess], Awaitable[int]], *, may_create: bool = False) -> NoReturn:
    """Opens the store, does the work with it, and exits with the code that it returns.

    may_create  an embedded store that is not there yet is made; otherwise a mistyped path would look like an empty one.
    """

    async def opened() -> int:
        from dal.factory import create_data_access

        async with create_data_access(url, auto_migrate=None if may_create else False) as data_access:
            return await work(data_access)

    run(opened())


def run(work: Coroutine[None, None, int], *, log_level: int = logging.ERROR) -> NoReturn:
    """Runs the coroutine and exits with the code that it returns, or the one its error deserves.

    log_level  of what the library logs, what is shown on standard error; `dal doctor` shows warnings too.
    """
    logging.basicConfig(format="dal: %(message)s", level=log_level)
    # It warns of each failed pipeline, which is told as an error anyway.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    try:
        code = asyncio.run(work)
        sys.stdout.flush()
    except DalError as error:
        code = report(error)
    except KeyboardInterrupt:
        complain("interrupted")
        code = INTERRUPTED
    except asyncio.CancelledError:  # a command that takes SIGTERM for the end of its work
        complain("terminated")
        code = TERMINATED
    except BrokenPipeError:
        end_quietly_when_nobody_reads()
    raise typer.Exit(code)


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"dal: {printable(text)}", file=sys.stderr)


def report(error: DalError, message: str = "") -> int:
    """Says what went wrong, in `message` where that says more than the error; the exit code that it deserves."""
    if os.environ.get("DAL_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    complain(f"{type(error).__name__}: {message or error.message}")
    if error.outcome == "unknown":
        complain("the answer was lost: the write may or may not have happened")
    return WRONG_USAGE if isinstance(error, ConfigurationError | InvalidInputError) else FAILED
