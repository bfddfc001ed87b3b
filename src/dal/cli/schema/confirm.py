"""The one question that the command line ever asks: before something is taken away, and only of a person."""

from __future__ import annotations

import signal
import sys

from dal.cli.output import printable
from dal.cli.running import complain
from dal.errors import InvalidInputError


def confirmed(what: str, *, yes: bool, is_ambiguous: bool = False) -> bool:
    """Whether to go on. Without `--yes` a person at a terminal is asked; only y or yes goes on. Elsewhere nobody is
    asked: who wrote the command into a script has decided.

    what          what would be taken away, in a sentence.
    is_ambiguous  the command may have been meant otherwise, so that a script must say `--yes`.
    Raises        InvalidInputError: it must, and did not.
    """
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        if is_ambiguous:
            raise InvalidInputError(f"{what} Nothing was done: say --yes, since nobody can be asked here")
        return True
    # asyncio takes Ctrl-C for itself, and would first notice it after the answer.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        print(f"dal: {printable(what)} Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
    finally:
        signal.signal(signal.SIGINT, former)
    if answer.strip().lower() in ("y", "yes"):
        return True
    complain("nothing was done")
    return False
