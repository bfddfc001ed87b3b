"""`dal chats`, `dal users`, `dal search`, `dal schema` and `dal doctor`, as people and programs see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dal import __version__
from tests.cli.conftest import Command, parsed

EVERY_STORE_COMMAND = [
    ["chats", "list"],
    ["chats", "show", "c-1"],
    ["users", "list"],
    ["users", "show", "ada"],
    ["search", "engine"],
    ["schema", "status"],
    ["doctor"],
]


def test_chats_are_listed_latest_first(run: Command, url: str) -> None:
    result = run("chats", "list", "--url", url)
    assert result.exit_code == 0
    places = [result.stdout.index(f" {chat} ") for chat in ("c-1", "nasty", "c-2") if chat in result.stdout]
    assert len(places) == 3
    assert "Engines" in result.stdout
    assert result.stderr == ""


def test_pages_of_chats_can_be_followed(run: Command, url: str) -> None:
    first = run("chats", "list", "--url", url, "-n", "2")
    assert "--after " in first.stderr
    cursor = first.stderr.strip().rpartition(" ")[2]
    second = run("chats", "list", "--url", url, "-n", "2", "--after", cursor)
    assert second.exit_code == 0
    assert sum(f" {chat} " in second.stdout for chat in ("c-1", "c-2", "nasty")) == 1


def test_chats_of_a_user_by_either_key(run: Command, url: str) -> None:
    user = json.loads(run("users", "show", "yuki", "--url", url, "--json").stdout)["user"]
    for key in ("yuki", user["id"]):
        items = json.loads(run("chats", "list", "--url", url, "--user", key, "--json").stdout)["items"]
        assert [chat["chat_id"] for chat in items] == ["c-2"]


def test_a_chat_is_shown_with_its_messages(run: Command, url: str) -> None:
    result = run("chats", "show", "c-1", "--url", url)
    assert result.exit_code == 0
    assert result.stdout.index("What is a difference engine?") < result.stdout.index("A mechanical calculator.")
    newest = run("chats", "show", "c-1", "--url", url, "-n", "1")
    assert "What is" not in newest.stdout
    assert "--before 2" in newest.stderr
    earlier = run("chats", "show", "c-1", "--url", url, "--before", "2")
    assert "mechanical" not in earlier.stdout


def test_a_user_is_shown_with_memory_and_chats(run: Command, url: str) -> None:
    result = run("users", "show", "ada", "--url", url)
    assert result.exit_code == 0
    for text in ("likes tea", "tone", "brief", "c-1"):
        assert text in result.stdout


def test_search_finds_and_an_empty_search_is_no_failure(run: Command, url: str) -> None:
    result = run("search", "difference", "--url", url)
    assert result.exit_code == 0
    assert "c-1" in result.stdout
    for text in ("nowhere", "rebuild", "status", '"', "--", "%"):
        result = run("search", "--url", url, "--", text)
        assert (result.exit_code, result.stdout) == (0, ""), text
        assert "nothing found" in result.stderr
    assert json.loads(run("search", "肉", "--url", url, "--user", "yuki", "--json").stdout)["items"]
    assert not json.loads(run("search", "肉", "--url", url, "--user", "ada", "--json").stdout)["items"]


@pytest.mark.parametrize("arguments", EVERY_STORE_COMMAND, ids=" ".join)
def test_json_is_one_document_and_nothing_else(run: Command, url: str, arguments: list[str]) -> None:
    assert isinstance(parsed(run(*arguments, "--url", url, "--json")), dict)


def test_json_holds_text_as_it_is(run: Command, url: str) -> None:
    document = json.loads(run("chats", "show", "nasty", "--url", url, "--json").stdout)
    assert document["messages"][0]["content"].startswith("\x1b[31mred")
    assert document["chat"]["title"] == "a\nb"


@pytest.mark.parametrize("arguments", [["chats", "list"], ["chats", "show", "nasty"], ["search", "markup"]])
def test_stored_text_plays_no_tricks_on_a_terminal(run: Command, url: str, arguments: list[str]) -> None:
    result = run(*arguments, "--url", url)
    assert result.exit_code == 0
    assert not {"\x1b", "\x07", "\u202e"} & set(result.stdout)
    if arguments[0] == "chats" and arguments[1] == "show":
        assert "\\x1b[31mred" in result.stdout
        assert "[bold]not markup[/bold]" in result.stdout
        assert "\\u202egnp.exe" in result.stdout
        assert "a\\nb" in result.stdout


@pytest.mark.parametrize("arguments", [["chats", "show", "no\x1bbody"], ["users", "show", "no\x1bbody"]])
def test_what_is_not_there_is_said_in_one_line(run: Command, url: str, arguments: list[str]) -> None:
    result = run(*arguments, "--url", url)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("arguments", EVERY_STORE_COMMAND, ids=" ".join)
@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_looking_at_a_store_never_creates_one(run: Command, tmp_path: Path, arguments: list[str], scheme: str) -> None:
    result = run(*arguments, "--url", f"{scheme}:{tmp_path / 'typo'}")
    assert result.exit_code == 1
    assert not (tmp_path / "typo").exists()
    if arguments != ["doctor"]:
        assert len(result.stderr.splitlines()) == 1
        assert "typo" in result.stderr


@pytest.mark.parametrize("arguments", EVERY_STORE_COMMAND, ids=" ".join)
def test_a_wrong_url_is_wrong_usage(run: Command, arguments: list[str]) -> None:
    result = run(*arguments, "--url", "redis://user:hunter2@host")
    assert result.exit_code == 2
    assert "redis" in result.stderr
    assert "hunter2" not in result.output


def test_the_environment_names_the_store(run: Command, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_STORAGE_TYPE", "sqlite")
    monkeypatch.setenv("SQLITE_PATH", url.removeprefix("sqlite:"))
    assert len(json.loads(run("chats", "list", "--json").stdout)["items"]) == 3
    monkeypatch.setenv("DATA_STORAGE_TYPE", "floppy")
    result = run("chats", "list")
    assert result.exit_code == 2
    assert "DATA_STORAGE_TYPE" in result.stderr
    assert "floppy" in result.stderr


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_schema_up_makes_a_store_and_can_be_repeated(run: Command, tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}:{tmp_path / 'new'}"
    assert run("schema", "status", "--url", url).exit_code == 1
    for _ in range(2):
        assert run("schema", "up", "--url", url).exit_code == 0
    assert (tmp_path / "new").exists()
    status = json.loads(run("schema", "status", "--url", url, "--json").stdout)
    assert status["usable"] is True
    assert status["required"] == []
    assert run("chats", "list", "--url", url).exit_code == 0


def test_the_search_migration_can_be_left_out(run: Command, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'new'}"
    assert run("schema", "up", "--url", url, "--leave-out", "0002_search.sql").exit_code == 0
    result = run("search", "x", "--url", url)
    assert result.exit_code == 1
    assert "UnsupportedError" in result.stderr
    status = json.loads(run("schema", "status", "--url", url, "--json").stdout)
    assert (status["usable"], status["pending"]) == (True, ["0002_search.sql"])
    assert run("schema", "up", "--url", url, "--leave-out", "0001_core.sql").exit_code == 1


def test_doctor_shows_no_secret(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_STORAGE_TYPE", "postgresql")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:1/db?password=hunter3")
    monkeypatch.setenv("DB_PASSWORD", "hunter4")
    monkeypatch.setenv("D1_API_TOKEN", "hunter5")
    for arguments in (["doctor"], ["doctor", "--json"], ["doctor", "--url", "postgresql://me:hunter6@127.0.0.1:1/db"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "hunter" not in result.output
        assert "me:***@127.0.0.1:1" in result.stdout


def test_the_version_is_shown(run: Command) -> None:
    assert run("--version").stdout == f"dal {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["chats", "nonsense"], ["chats", "show"], ["chats", "list", "-n", "0"], ["search"]]
)
def test_wrong_usage_exits_with_2(run: Command, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2
