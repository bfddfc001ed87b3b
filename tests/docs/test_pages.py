"""Every code block of the documentation runs, and prints what the page says it prints."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dal.config import Settings
from tests.docs import pages
from tests.engines.d1 import D1Engine
from tests.engines.postgres import PostgresServer


@pytest.fixture
def page_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory to be in, a clean environment, and no module of another page. What a page sets is undone."""
    environment = dict(os.environ)
    for variable in (*map(str.upper, Settings.model_fields), "PYTHONPATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")  # as wide as the pages
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    os.environ.clear()
    os.environ.update(environment)
    for added in set(sys.modules) - before:
        if (getattr(sys.modules[added], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[added]


@pytest.fixture
def background() -> Iterator[list[int]]:
    """Sessions of shells; what still runs in them at the end of the page is ended."""
    sessions: list[int] = []
    yield sessions
    for session in sessions:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)


@pytest.mark.parametrize("page", pages.pages(), ids=pages.name)
def test_every_block_runs(
    page: Path,
    page_directory: Path,
    background: list[int],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed = ""
    names: dict[str, object] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        for block in pages.blocks(page):
            where = f"{pages.name(page)}:{block.line}"
            if block.comment.startswith("needs: postgresql"):
                server: PostgresServer = request.getfixturevalue("postgres_server")
                monkeypatch.setenv("DATABASE_URL", server.create_database())
            if block.comment.startswith("needs: d1"):
                engine: D1Engine = request.getfixturevalue("d1_engine")
                for name, value in engine.create_database().variables.items():
                    monkeypatch.setenv(name, value)
            if block.comment.startswith("not run:") or block.text.startswith("--8<--"):
                continue  # what is included from examples/ runs there
            if block.comment.startswith("prints"):
                assert _matches(block.text, printed), f"{where}: printed was\n{printed}"
            elif block.title is not None:
                path = page_directory / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                printed = _run_python(block, where, names, runner)
            elif block.language == "bash":
                printed = _run_shell(block, where, background)


def test_the_tutorial_says_what_its_reader_sees_at_the_prompt(page_directory: Path) -> None:
    """There, an expression shows its value, too, wherever it stands."""
    seen: str | None = None  # None: no Python was typed last
    compared = 0
    names: dict[str, object] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        for block in pages.blocks(pages.DOCS / "tutorial.md"):
            where = f"tutorial:{block.line}"
            if block.comment.startswith("prints"):
                assert seen is None or _matches(block.text, seen), f"{where}: seen was\n{seen}"
                compared += seen is not None
            elif block.language == "python" and block.title is None:
                statements = ast.parse(block.text).body
                seen = "".join(_run(ast.Interactive([one]), where, names, runner) for one in statements)
            else:
                seen = None
    assert compared


@pytest.mark.parametrize("page", pages.pages(), ids=pages.name)
def test_no_block_escapes_by_an_odd_language_or_comment(page: Path) -> None:
    for block in pages.blocks(page):
        where = f"{pages.name(page)}:{block.line}"
        assert block.language in (*pages.RUN, *pages.SHOWN_ONLY), where
        if block.comment:
            assert re.match(r"not run: .|prints$|needs: (postgresql|d1)$", block.comment), where
        if block.language == "json":
            json.loads(block.text)


@pytest.mark.parametrize("page", pages.pages(), ids=pages.name)
def test_every_file_that_a_page_writes_is_used_by_one_of_its_commands(page: Path) -> None:
    found = list(pages.blocks(page))
    for block in found:
        if block.title is not None and not block.text.startswith("--8<--"):
            others = [other for other in found if other is not block]
            assert any(_uses(other, Path(block.title)) for other in others), f"{pages.name(page)}: {block.title}"


def _uses(block: pages.Block, file: Path) -> bool:
    """The block names the file, or the directory it stands in; `--env` and `--all` read dal.toml."""
    names = [file.stem, *(part.name for part in file.parents if part.name)]
    if file.name == "dal.toml":
        names += ["--env", "--all"]
    return any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", block.text) for name in names)


def _run_python(block: pages.Block, where: str, names: dict[str, object], runner: asyncio.Runner) -> str:
    """What the block prints. As in `python -m asyncio`, it may await at its top level."""
    lines = "\n" * (block.line - 1) + block.text  # a traceback then shows the page's own line numbers
    return _run(ast.parse(lines, where), where, names, runner)


def _run(tree: ast.Module | ast.Interactive, where: str, names: dict[str, object], runner: asyncio.Runner) -> str:
    mode = "single" if isinstance(tree, ast.Interactive) else "exec"
    code = compile(tree, where, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(eval(code, names))  # noqa: S307  # our own page
        else:
            exec(code, names)  # noqa: S102  # our own page
    return out.getvalue()


def _run_shell(block: pages.Block, where: str, sessions: list[int]) -> str:
    """What the block prints. What it leaves running in the background is of the session that is noted."""
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", block.text],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    sessions.append(shell.pid)
    try:
        printed, complained = shell.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        printed, complained = shell.communicate()
    assert shell.returncode == 0, f"{where}: exit code {shell.returncode}\n{printed}\n{complained}"
    return printed


def _matches(expected: str, printed: str) -> bool:
    """Whether this was printed; `…` stands for anything within a line, alone for any number of lines."""
    pattern = re.escape(expected.strip() + "\n")
    pattern = re.sub(r"^…\\\n", r"(?:[^\\n]*\\n)*", pattern, flags=re.M).replace("…", "[^\n]*")
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in printed.strip().splitlines())) is not None
