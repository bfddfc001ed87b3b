"""`dal import` in a terminal: summary, refusals, exit codes, reports."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from dal.ops import JsonValue
from tests.cli.conftest import Command, parsed
from tests.importing.sources import conversation, write

BAD: list[JsonValue | bytes] = [conversation("c-1", "one"), b"broken", conversation("c-2", "secret \0 content")]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'new.db'}"


def test_a_summary_for_people(run: Command, tmp_path: Path, url: str) -> None:
    result = run("import", str(write(tmp_path / "source.jsonl", [conversation("c-1", "one", "two")])), "--url", url)
    assert result.exit_code == 0
    assert result.stderr == ""
    cells = result.stdout.split("\n")[3].split()
    assert cells[:5] == ["source.jsonl", "1", "1", "2", "0"]


def test_json_for_programs(run: Command, tmp_path: Path, url: str) -> None:
    files = [str(write(tmp_path / name, [conversation(name, "one")])) for name in ("a", "b")]
    document = parsed(run("import", *files, "--url", url, "--json"))
    assert isinstance(document, dict)
    reports = document["files"]
    assert isinstance(reports, list)
    assert [r["messages"] for r in reports if isinstance(r, dict)] == [1, 1]


def test_refusals_are_named_without_content_and_exit_with_1(run: Command, tmp_path: Path, url: str) -> None:
    source, report = write(tmp_path / "source", BAD), tmp_path / "report.jsonl"
    result = run("import", str(source), "--url", url, "--report", str(report))
    assert result.exit_code == 1
    assert f"{source}:2: not JSON" in result.stderr
    assert f"{source}:3 (c-2): messages[0].content: found U+0000" in result.stderr
    assert "secret" not in result.output
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(line["line"], line["chat_id"], line["user"]) for line in lines] == [(2, None, None), (3, "c-2", "ada")]
    assert all(line["file"] == str(source) and line["reason"] for line in lines)
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    document = json.loads(run("import", str(source), "--url", url, "--json").stdout)
    assert document["files"][0]["refused"] == 2
    assert len(document["files"][0]["refusals"]) == 2


def test_an_export_is_imported_by_its_name_or_because_it_is_certain(run: Command, tmp_path: Path, url: str) -> None:
    source = tmp_path / "s-1.json"
    source.write_text('[{"type": "human", "data": {"content": "hi"}}]')
    assert run("import", str(source), "--url", url, "--user", "ada").exit_code == 0
    assert "hi" in run("chats", "show", "s-1", "--url", url).stdout
    assert "s-1" in run("users", "show", "ada", "--url", url).stdout
    assert run("import", str(source), "--url", url, "--format", "langchain").exit_code == 0
    assert run("import", str(source), "--url", url, "--format", "claude").exit_code == 1


def test_bad_text_can_be_replaced(run: Command, tmp_path: Path, url: str) -> None:
    source = write(tmp_path / "source", [BAD[2]])
    assert run("import", str(source), "--url", url, "--on-bad-text", "replace").exit_code == 0
    assert "secret \ufffd content" in run("chats", "show", "c-2", "--url", url).stdout


def test_many_refusals_are_summed_up(run: Command, tmp_path: Path, url: str) -> None:
    result = run("import", str(write(tmp_path / "source", [b"broken"] * 50)), "--url", url)
    assert len(result.stderr.splitlines()) == 21
    assert "30 more" in result.stderr


@pytest.mark.parametrize(
    "more",
    [
        ["nothing-here"],
        ["source", "--batch", "0"],
        ["source", "--on-bad-text", "ignore"],
        ["source", "--format", "xml"],
        ["source", "--report", "no/such/directory/report"],
        [],
    ],
)
def test_wrong_usage_exits_with_2_and_touches_nothing(run: Command, tmp_path: Path, url: str, more: list[str]) -> None:
    write(tmp_path / "source", [conversation("c-1", "one")])
    assert run("import", "--url", url, *more).exit_code == 2
    assert not (tmp_path / "new.db").exists()


def test_postgresql_is_never_changed_without_being_asked(
    run: Command, tmp_path: Path, postgres_server_url: str
) -> None:
    source = str(write(tmp_path / "source", [conversation("c-1", "one")]))
    result = run("import", source, "--url", postgres_server_url)
    assert result.exit_code == 1
    assert "dal schema up" in result.stderr
    assert run("schema", "up", "--url", postgres_server_url).exit_code == 0
    assert run("import", source, "--url", postgres_server_url).exit_code == 0
