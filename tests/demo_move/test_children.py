"""Whoever waits for a line of a child learns that none will come: it ended, is silent, or says what nobody takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.demo_move import children
from tests.demo_move.children import Child, CommandFailedError

_WAITS = "import sys; sys.stdin.read()"


@pytest.fixture(autouse=True)
def _programs_are_given_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c"))


def _ignore(line: dict[str, Any]) -> None:
    pass


def _refuse(line: dict[str, Any]) -> None:
    raise LookupError("no such unit")


def _is_second(line: dict[str, Any]) -> bool:
    return bool(line["n"] == 2)


async def test_the_line_that_is_waited_for_is_given(tmp_path: Path) -> None:
    child = Child(tmp_path / "log", _ignore)
    await child.start(f"for n in (1, 2): print('{{\"n\": %d}}' % n, flush=True); input()\n{_WAITS}")
    assert await child.until(lambda line: line["n"] == 1) == {"n": 1}
    await child.close()


@pytest.mark.parametrize(
    ("says", "on_line", "error", "match"),
    [
        ("""print('{"n": 1}')""", _ignore, CommandFailedError, "ended by itself: 0"),
        (f"""print('{{"n": 1}}', flush=True); {_WAITS}""", _refuse, LookupError, "no such unit"),
        (f"""print('no line', flush=True); {_WAITS}""", _ignore, ValueError, "Expecting value"),
        (f"""print('{{"n": 1}}', flush=True); {_WAITS}""", _ignore, CommandFailedError, "says nothing any more"),
    ],
)
async def test_a_line_that_never_comes_is_not_waited_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    on_line: Callable[[dict[str, Any]], None],
    error: type[Exception],
    match: str,
) -> None:
    if "any more" in match:
        monkeypatch.setattr(children, "_SILENT_S", 1.0)
    child = Child(tmp_path / "log", on_line)
    await child.start(says)
    with pytest.raises(error, match=match):
        await child.until(_is_second)
    await child.close()
