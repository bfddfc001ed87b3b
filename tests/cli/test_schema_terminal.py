"""What people see at a terminal, and how the commands behave as processes: questions, progress, Ctrl-C, no secrets."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT_S, Command, command_line, document
from tests.cli.schema_files import AUTHORS, BOOKS

Spawn = Callable[..., subprocess.CompletedProcess[bytes]]


class Terminal:
    """A command with a terminal for its three streams."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            command_line(*arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        )
        os.close(theirs)
        self._seen = b""

    def until(self, text: bytes) -> str:
        """Reads on until the text has been shown."""
        while text not in self._seen:
            piece = self._read()
            assert piece, self._seen
            self._seen += piece
        return self._text()

    def say(self, text: bytes) -> None:
        os.write(self._ours, text)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def finish(self) -> tuple[int, str]:
        """Exit code, and everything that was shown, without the codes that move the cursor."""
        while piece := self._read():
            self._seen += piece
        code = self._process.wait(TIMEOUT_S)
        os.close(self._ours)
        return code, self._text()

    def _read(self) -> bytes:
        if not select.select([self._ours], [], [], TIMEOUT_S)[0]:
            self._process.kill()
            raise AssertionError(f"nothing more was shown: {self._seen!r}")
        try:
            return os.read(self._ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            return b""

    def _text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._seen.decode())


@pytest.fixture
def migrated(run: Command, files: str, tmp_path: Path) -> list[str]:
    """The options that name an SQLite database with every file applied."""
    options = ["--dir", files, "--url", f"sqlite:{tmp_path / 'database.db'}"]
    assert run("schema", "up", *options).exit_code == 0
    return options


def is_whole(run: Command, options: list[str]) -> bool:
    return run("schema", "status", *options).exit_code == 0


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"\x04", b"yessir\n"])
def test_anything_but_a_yes_leaves_everything_as_it_is(run: Command, migrated: list[str], answer: bytes) -> None:
    terminal = Terminal("schema", "down", *migrated)
    shown = terminal.until(b"[y/N]")
    assert BOOKS in shown
    terminal.say(answer)
    code, shown = terminal.finish()
    assert code == 1
    assert "nothing was done" in shown
    assert is_whole(run, migrated)


def test_a_yes_goes_on(run: Command, migrated: list[str]) -> None:
    terminal = Terminal("schema", "down", *migrated)
    terminal.until(b"[y/N]")
    terminal.say(b"y\n")
    code, shown = terminal.finish()
    assert code == 0
    assert f"took back rollback/{BOOKS} in " in shown
    assert not is_whole(run, migrated)


def test_ctrl_c_at_the_question_ends_it_at_once(run: Command, migrated: list[str]) -> None:
    terminal = Terminal("schema", "down", *migrated)
    terminal.until(b"[y/N]")
    terminal.interrupt()
    code, shown = terminal.finish()
    assert code == 130
    assert "Traceback" not in shown
    assert is_whole(run, migrated)


def test_restore_asks_as_well(run: Command, migrated: list[str]) -> None:
    path = run("schema", "backup", *migrated[2:]).stdout.strip()
    terminal = Terminal("schema", "restore", path, *migrated[2:])
    terminal.until(b"[y/N]")
    terminal.say(b"n\n")
    assert terminal.finish()[0] == 1
    assert Terminal("schema", "restore", path, *migrated[2:], "--yes").finish()[0] == 0


def test_up_shows_what_runs_now_and_asks_nothing(files: str, tmp_path: Path) -> None:
    code, shown = Terminal("schema", "up", "--dir", files, "--url", f"sqlite:{tmp_path / 'new.db'}").finish()
    assert code == 0
    for place, name in enumerate((AUTHORS, BOOKS), start=1):
        assert f"file {place} of 2  {name}" in shown
        assert f"applied {name} in " in shown
    assert "[y/N]" not in shown


def test_no_secret_is_shown_by_any_command(spawn: Spawn, files: str, tmp_path: Path) -> None:
    url = "postgresql://me:hunter2@127.0.0.1:1/db?password=hunter2"
    (tmp_path / "dal.toml").write_text('[environments.prod]\nurl = "$PROD_URL"\n')
    for arguments in (
        *(["status"], ["plan", "--sql"], ["validate"], ["up", "--report", "out"], ["down", "--yes"], ["verify"]),
        *(["drift"], ["explain", "SELECT 1"], ["backup"], ["baseline", "--to", AUTHORS]),
    ):
        directory = [] if arguments[0] == "backup" else ["--dir", files]
        for target in (["--url", url], ["--env", "prod"]):
            done = spawn("schema", *arguments, *directory, *target, PROD_URL=url, DAL_DEBUG="1")
            assert done.returncode == 1, (arguments, done.stderr)
            assert b"hunter2" not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or path.name == "dal.toml" or b"hunter2" not in path.read_bytes()


@pytest.mark.parametrize("scheme", ["file:store", "memory://"])
def test_stores_without_migrations_refuse_what_makes_no_sense(run: Command, files: str, scheme: str) -> None:
    made = document(run("schema", "up", "--url", scheme, "--json"))
    assert (made["ok"], made["applied"]) == (True, [])
    for arguments in (
        *(["plan"], ["validate"], ["down", "--yes"], ["verify"], ["drift"], ["explain", "SELECT 1"], ["backup"]),
        *(["baseline", "--to", AUTHORS], ["up", "--dir", files], ["status", "--dir", files], ["lint"], ["new", "x"]),
        *(["up", "--backup"], ["up", "--report", "out"], ["up", "--to", AUTHORS]),
    ):
        result = run("schema", *arguments, "--url", scheme)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--dir", "no-such-directory"],
        ["up", "--steps", "2"],
        ["down", "--steps", "0"],
        ["down", "--steps", "1", "--to", AUTHORS, "--url", "sqlite:x.db"],
        ["lint", "--place", "oracle"],
        ["new", "x", "--phase", "sometime"],
        ["baseline"],
        ["restore"],
        ["backup", "--dir", "."],
        ["explain", "SELECT 1", "--url", "redis://me:hunter2@host"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(run: Command, tmp_path: Path, arguments: list[str]) -> None:
    before = set(tmp_path.iterdir())
    result = run("schema", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "hunter2" not in result.output
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["down", "verify", "drift", "backup"])
def test_looking_at_a_database_never_makes_one(run: Command, tmp_path: Path, files: str, command: str) -> None:
    more = [] if command == "backup" else ["--dir", files]
    result = run("schema", command, *more, "--url", f"sqlite:{tmp_path / 'typo.db'}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "typo.db is not there yet; `dal schema up " in result.stderr
    assert not (tmp_path / "typo.db").exists()


@pytest.mark.parametrize("command", ["status", "plan"])
def test_a_database_that_is_not_there_yet_lacks_everything(
    run: Command, tmp_path: Path, files: str, command: str
) -> None:
    url = f"sqlite:{tmp_path / 'new.db'}"
    result = run("schema", command, "--dir", files, "--url", url, "--json")
    pending = document(result, code=1)["pending"]
    assert [p if isinstance(p, str) else p["name"] for p in pending] == [AUTHORS, BOOKS]
    assert "new.db is not there yet; `dal schema up --dir " in result.stderr
    assert run("schema", "validate", "--dir", files, "--url", url).exit_code == 0
    assert not (tmp_path / "new.db").exists()
