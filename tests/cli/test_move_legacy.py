"""A legacy directory moved through the command line: what is asked before, and where no way leads back."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Command

pytestmark = pytest.mark.usefixtures("swift")


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """A directory with one chat, and an SQLite file that is not there yet."""
    sessions = tmp_path / "site" / "data" / "chat_sessions"
    sessions.mkdir(parents=True)
    (sessions / "c-1.json").write_text(json.dumps({"messages": [{"role": "user", "content": "hello"}]}))
    return ["--from", f"legacy:{tmp_path / 'site'}", "--to", f"sqlite:{tmp_path / 'target.db'}"]


def test_a_cutover_of_legacy_files_is_one_way_and_has_to_be_told_so(
    run: Command, options: list[str], tmp_path: Path
) -> None:
    sessions = tmp_path / "site" / "data" / "chat_sessions"
    started = run("move", "start", *options, "--exit-when-verified")
    assert started.exit_code == 0
    told = f"next: dal move cutover {shlex.join(options)} --one-way"
    assert told in started.stderr
    assert told in run("move", "status", *options).stderr
    refused = run("move", "cutover", *options, "--yes")
    assert refused.exit_code == 2
    assert "--one-way" in refused.stderr
    assert sessions.is_dir()
    (line,) = [line for line in started.stderr.splitlines() if "next: dal " in line]
    done = run(*shlex.split(line.partition("next: dal ")[2]), "--yes")
    assert done.exit_code == 0
    assert "dal move rollback" not in done.stderr + run("move", "status", *options).stderr
    assert sessions.is_file()
    back = run("move", "rollback", *options, "--yes")
    assert back.exit_code == 1
    assert "nothing is written back" in back.stderr
    assert run("check", options[1], options[3]).exit_code == 0
    assert run("move", "retire", *options, "--yes").exit_code == 0
    assert "hello" in run("chats", "show", "c-1", "--url", options[3]).stdout
    assert "hello" in run("chats", "show", "c-1", "--url", options[1]).stdout, "and the backup can be read"


def test_a_plan_names_files_that_are_not_taken(run: Command, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "site" / "data" / "chat_sessions" / "old.txt").write_text("user: hi")
    (tmp_path / "site" / "data" / "chat_sessions" / "torn.json").write_text('{"mess')
    found = json.loads(run("move", "plan", *options, "--json").stdout)
    assert [(obstacle["kind"], obstacle["text"]) for obstacle in found["obstacles"]] == [
        (
            "damage",
            "the source: data/chat_sessions/torn.json: not JSON, or not whole yet; its rows are kept as they were",
        ),
        ("store", "the source: data/chat_sessions: 1 files are neither .json nor .jsonl, and are not taken"),
    ]


def test_a_rehearsal_leaves_the_files_where_they_are(run: Command, options: list[str], tmp_path: Path) -> None:
    done = run("move", "rehearse", *options[:2], "--scratch", options[3])
    assert done.exit_code == 0
    assert "no cutover was carried out: the source is a directory of legacy files" in done.stderr
    assert "--cutover" not in done.stderr
    assert (tmp_path / "site" / "data" / "chat_sessions").is_dir()
