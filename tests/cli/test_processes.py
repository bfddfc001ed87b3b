"""The command as a process among others: closed pipes, Ctrl-C, start-up, a clean environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dal.ops import JsonValue
from tests.cli.conftest import TIMEOUT_S, Command, command_line
from tests.importing.sources import conversation, write

Spawn = Callable[..., subprocess.CompletedProcess[bytes]]


def test_the_console_script_is_the_same_command(spawn: Spawn) -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="dal")
    assert script.value == "dal.cli:main"
    assert spawn("--version").stdout.startswith(b"dal ")


def test_help_loads_no_driver_and_no_model() -> None:
    code = (
        "import sys; sys.argv = ['dal', '--version']\n"
        "from dal.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'pydantic', 'psycopg', 'aiosqlite', 'orjson', 'tenacity'} & set(sys.modules)))"
    )
    done = subprocess.run([command_line()[0], "-c", code], capture_output=True, timeout=TIMEOUT_S, check=True)
    assert done.stdout.splitlines()[-1] == b"[]"


@pytest.mark.parametrize("arguments", [["chats", "list"], ["chats", "list", "--json"], ["doctor"]], ids=" ".join)
def test_a_reader_that_goes_away_is_no_error(url: str, arguments: list[str]) -> None:
    # More than a pipe holds, were it all written; the reader is gone before the first byte.
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        command_line(*arguments, "--url", url), stdout=writer, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    os.close(writer)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert errors == b"" or b"SQLite" in errors
    assert process.returncode == 0


def test_an_error_is_one_line_and_the_traceback_is_for_those_who_ask(spawn: Spawn) -> None:
    quiet = spawn("chats", "list", "--url", "sqlite:not-there.db")
    assert quiet.returncode == 1
    assert quiet.stderr.count(b"\n") == 1
    assert b"SchemaError" in quiet.stderr
    loud = spawn("chats", "list", "--url", "sqlite:not-there.db", DAL_DEBUG="1")
    assert b"Traceback" in loud.stderr


def test_wrong_passwords_are_not_shown(spawn: Spawn) -> None:
    for arguments in (["chats", "list"], ["doctor"], ["schema", "status"], ["schema", "up"]):
        for extra in ({}, {"DAL_DEBUG": "1"}):
            done = spawn(*arguments, "--url", "postgresql://me:hunter2@127.0.0.1:1/db", **extra)
            assert done.returncode == 1
            assert b"hunter2" not in done.stdout + done.stderr


def test_ctrl_c_leaves_whole_conversations_only(run: Command, tmp_path: Path) -> None:
    texts = [f"{n} " + "x" * 2000 for n in range(20)]
    records: list[JsonValue | bytes] = [conversation(f"c-{n}", *texts) for n in range(100)]
    source, url = write(tmp_path / "source", records), f"sqlite:{tmp_path / 'new.db'}"
    data = source.read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        command_line("import", str(pipe), "--url", url, "--batch", "50"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    with os.fdopen(_writing_end(pipe, process), "wb", buffering=0) as source_end:
        # When two thirds of it have gone through a pipe of 64 KiB, the import is at work on the first third at least.
        written = 0
        while written < len(data) * 2 // 3:
            written += source_end.write(data[written : written + 65536])
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    chats = json.loads(run("chats", "list", "--url", url, "-n", "1000", "--json").stdout)["items"]
    assert {chat["message_count"] for chat in chats} <= {20}
    assert len(chats) < 100
    for chat in chats[:3]:
        shown = json.loads(run("chats", "show", chat["chat_id"], "--url", url, "--json").stdout)
        assert [m["content"] for m in shown["messages"]] == texts
    again = json.loads(run("import", str(source), "--url", url, "--json").stdout)["files"][0]
    assert (again["chats"], again["unchanged"], again["refused"]) == (100 - len(chats), len(chats), 0)


def _writing_end(pipe: Path, reader: subprocess.Popen[bytes]) -> int:
    """The pipe, opened when its reader has opened it, who may also end before that."""
    while reader.poll() is None:
        with suppress(OSError):  # nobody reads yet
            end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            os.set_blocking(end, True)
            return end
    raise AssertionError(reader.communicate())
