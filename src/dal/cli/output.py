"""How things are shown: tables for people, JSON for programs, and nothing that could play tricks on a terminal.

Stored text comes from anywhere. Control characters, direction overrides and odd line ends are shown as escapes, and no
text is read as markup. JSON holds the text itself.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# C0 and C1 controls but tab and newline, direction marks and overrides, line and paragraph separators, byte order mark.
_TRICKY: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_PIPED_COLUMNS: Final = 120


def printable(text: str) -> str:
    """The text as a terminal may see it; newlines and tabs stay."""
    return _TRICKY.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """The text as a terminal may see it, newlines and tabs as escapes."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def print_json(value: object) -> None:
    """One JSON document on standard output, records in it as objects."""
    import orjson

    data = orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def console() -> Console:
    """Standard output for people."""
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            end_quietly_when_nobody_reads()

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPED_COLUMNS
    return Quiet(highlight=False, markup=False, emoji=False, width=width)


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table whose cells are plain text. Columns whose names end in `>` are numbers, to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=None if title is None else Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    for name in columns:
        made.add_column(name.removesuffix(">"), justify="right" if name.endswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell(value)) for value in row))
    return made


def cell(value: object) -> str:
    """A value as a person reads it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, str):
        return printable(value)
    return printable(compact_json(value))


def compact_json(value: object) -> str:
    import orjson

    return orjson.dumps(value, default=_plain).decode()


def end_quietly_when_nobody_reads() -> NoReturn:
    """For output to a pipe whose reader has gone, as `| head` does: no error, no traceback at shutdown either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _plain(value: object) -> object:
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(type(value).__name__)
