"""The `dal` command: schema, import, look-ups, search, live moves and check-ups of any store, for people and programs.

Tables for people, `--json` for programs on standard output, progress and errors on standard error. Exit codes: 0 fine,
1 failed or found something, 2 wrong usage, 130 interrupted. It asks a question only of a person at a terminal, and only
before something is taken away (`dal schema down`, `dal schema restore`, `dal search drop`) or a move's stores change
their parts (`dal move cutover`, `rollback`, `retire`, `abort`).
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line and exits."""
    from dal.cli.app import app
    from dal.cli.output import end_quietly_when_nobody_reads

    try:
        app(prog_name="dal")
    except BrokenPipeError:
        end_quietly_when_nobody_reads()
    except KeyboardInterrupt:
        sys.exit(130)
