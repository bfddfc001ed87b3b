"""`dal files`, as people and programs see it: look-ups, contents, upkeep and use."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from dal.factory import create_data_access
from tests.cli.conftest import Command, document, parsed

FORMER = "2020-01"


@pytest.fixture
def blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> Path:
    """The directory that BLOB_URL names, and the store `url` in the environment."""
    monkeypatch.setenv("BLOB_URL", f"file:{tmp_path / 'blobs'}")
    monkeypatch.setenv("DATA_STORAGE_TYPE", "sqlite")
    monkeypatch.setenv("SQLITE_PATH", url.removeprefix("sqlite:"))
    return tmp_path / "blobs"


@pytest.fixture
def file(run: Command, blobs: Path, tmp_path: Path) -> str:
    """The id of a file of ada's."""
    (tmp_path / "engine\x1b[31m.txt").write_text("a drawing of the engine\n" * 100)
    result = run("files", "upload", str(tmp_path / "engine\x1b[31m.txt"), "--user", "ada", "--name", "engine.txt")
    assert result.exit_code == 0, result.output
    assert "stored 2,400 bytes, text/plain" in result.stderr
    return result.stdout.strip()


def test_a_file_is_stored_looked_up_and_written_back(run: Command, file: str, tmp_path: Path) -> None:
    (listed,) = document(run("files", "list", "--user", "ada", "--json"))["items"]
    assert (listed["id"], listed["filename"], listed["file_size"]) == (file, "engine.txt", 2400)
    assert "engine.txt" in run("files", "list").stdout
    assert document(run("files", "list", "--user", "yuki", "--json"))["items"] == []

    shown = document(run("files", "show", file, "--json"))
    assert shown["file"]["checksum"].startswith("sha256:")
    assert [entry["action"] for entry in shown["log"]][-1] == "upload"
    assert "engine.txt" in run("files", "show", file).stdout

    (tmp_path / "out").mkdir()
    result = run("files", "download", file, str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out/engine.txt").read_text() == "a drawing of the engine\n" * 100
    again = run("files", "download", file, str(tmp_path / "out"))
    assert (again.exit_code, "--force" in again.stderr) == (1, True)
    assert run("files", "download", file, str(tmp_path / "out"), "--force").exit_code == 0
    taken = run("files", "upload", str(tmp_path / "out/engine.txt"), "--user", "ada", "--if-absent")
    assert (taken.exit_code, "AlreadyExistsError" in taken.stderr) == (1, True)


def test_a_deleted_file_is_not_found_until_it_is_restored(run: Command, file: str) -> None:
    assert run("files", "delete", file).exit_code == 0
    assert run("files", "delete", file).exit_code == 1
    assert run("files", "show", file).exit_code == 1
    assert run("files", "download", file, "x").exit_code == 1
    assert document(run("files", "list", "--json"))["items"] == []
    (deleted,) = document(run("files", "list", "--status", "deleted", "--json"))["items"]
    assert deleted["id"] == file
    assert document(run("files", "restore", file, "--json"))["status"] == "active"
    assert run("files", "restore", file).exit_code == 1
    assert document(run("files", "delete", file, "--json")) == {"file": file, "deleted": True}


def test_who_may_use_a_file_is_said_and_taken_back(run: Command, file: str) -> None:
    granted = document(run("files", "grant", file, "--user", "yuki", "--permission", "write", "--json"))
    link = run("files", "grant", file, "--link", "--expires-in", "60")
    assert link.exit_code == 0, link.output
    assert "may read it until 20" in link.stderr
    shown = run("files", "show", file)
    assert link.stdout.strip() not in shown.stdout
    assert "whoever has the link" in shown.stdout
    permissions = document(run("files", "show", file, "--json"))["permissions"]
    assert {found["permission"] for found in permissions} == {"read", "write"}
    assert run("files", "revoke", file, "--user", "yuki").exit_code == 0
    assert run("files", "revoke", file, "--id", granted["id"]).exit_code == 1
    (left,) = [found["id"] for found in permissions if found["permission"] == "read"]
    assert document(run("files", "revoke", file, "--id", left, "--json"))["revoked"] is True
    for wrong in (["grant", file], ["grant", file, "--user", "yuki", "--link"], ["revoke", file]):
        assert run("files", *wrong).exit_code == 2


def test_an_unknown_user_is_a_failure_and_no_wrong_usage(run: Command, file: str, blobs: Path, tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("a.txt,nobody\n")
    (tmp_path / "media").mkdir()
    move = ("files", "move", "--from-dir", str(tmp_path / "media"), "--to", f"file:{blobs}")
    for command in (
        ("users", "show", "nobody"),
        ("chats", "list", "--user", "nobody"),
        ("search", "word", "--user", "nobody"),
        ("files", "list", "--user", "nobody"),
        ("files", "log", "--user", "nobody"),
        ("files", "usage", "--user", "nobody"),
        ("files", "quota", "nobody"),
        ("files", "quota", "nobody", "--bytes", "1"),
        ("files", "upload", str(tmp_path / "map.csv"), "--user", "nobody"),
        ("files", "grant", file, "--user", "nobody"),
        ("files", "revoke", file, "--user", "nobody"),
        (*move, "--user", "nobody"),
        (*move, "--map", str(tmp_path / "map.csv")),
    ):
        result = run(*command)
        assert (result.exit_code, "no user 'nobody'" in result.stderr) == (1, True), (command, result.output)


def test_a_quota_is_shown_set_and_kept(run: Command, file: str, tmp_path: Path) -> None:
    assert "no limit" in run("files", "quota", "ada").stdout
    quota = document(run("files", "quota", "ada", "--bytes", "2.5KB", "--files", "10", "--json"))
    assert (quota["max_bytes"], quota["max_files"], quota["used_bytes"]) == (2500, 10, 2400)
    (tmp_path / "more").write_text("x" * 200)
    refused = run("files", "upload", str(tmp_path / "more"), "--user", "ada")
    assert (refused.exit_code, "QuotaExceededError" in refused.stderr) == (1, True)
    assert document(run("files", "quota", "ada", "--bytes", "none", "--json"))["max_files"] == 10
    assert run("files", "upload", str(tmp_path / "more"), "--user", "ada").exit_code == 0
    assert document(run("files", "usage", "--user", "ada", "--json"))["used_files"] == 2
    assert run("files", "quota", "ada", "--bytes", "much").exit_code == 2


def test_what_was_done_is_in_the_log(run: Command, file: str, tmp_path: Path) -> None:
    run("files", "download", file, str(tmp_path / "a"))
    run("files", "restore", file)
    log = document(run("files", "log", "--file", file, "--json"))["items"]
    assert [(entry["action"], entry["success"]) for entry in log] == [
        ("restore", False),
        ("download", True),
        ("upload", True),
    ]
    assert [entry["action"] for entry in document(run("files", "log", "--failed", "--json"))["items"]] == ["restore"]
    assert "NotFoundError" in run("files", "log", "--action", "restore").stdout
    page = run("files", "log", "-n", "1")
    assert "--after " in page.stderr
    cursor = page.stderr.strip().rpartition(" ")[2]
    assert "restore" not in run("files", "log", "--after", cursor).stdout


def test_a_sweep_says_what_it_did_and_what_is_missing(run: Command, file: str, blobs: Path) -> None:
    assert document(run("files", "sweep", "--json"))["missing_files"] == 0
    assert "orphan blobs" in run("files", "sweep", "--dry-run").stdout
    for path in blobs.rglob("*"):
        if path.is_file() and path.stat().st_size:
            path.unlink()
    result = run("files", "sweep")
    assert result.exit_code == 1
    assert file in result.stderr
    assert document(run("files", "sweep", "--json"), code=1)["missing"] == [file]


def test_requests_that_were_signed_are_told_with_the_costs(
    run: Command, file: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "signed" not in run("files", "costs").stdout
    monkeypatch.setenv("BLOB_SIGNING_SECRET", "0" * 32)
    monkeypatch.setenv("BLOB_PUBLIC_URL", "http://127.0.0.1/blobs")

    async def sign() -> None:
        async with create_data_access(url) as dal:
            for _ in range(2):
                await dal.files.presign_get(file, expires_in=60)

    asyncio.run(sign())
    assert "2 requests were signed" in run("files", "costs").stdout
    assert document(run("files", "costs", "--json"))["signed"] == 2


def test_usage_and_costs_are_shown_checked_and_recorded(run: Command, file: str, tmp_path: Path) -> None:
    spent = document(run("files", "costs", "--record", "--json"))
    assert spent["provider"] == "file"
    assert {line["item"] for line in spent["items"]} == {"storage", "class_a", "class_b", "egress"}
    used = document(run("files", "usage", "--json"))
    assert (used["total"]["files"], used["total"]["bytes"], used["alerts"]) == (1, 2400, [])
    assert used["growth"][0]["bytes"] == 2400
    assert "stored bytes" in run("files", "usage").stdout
    (by_user,) = document(run("files", "usage", "--by-user", "--json"))["items"]
    assert by_user["used_bytes"] == 2400
    assert run("files", "usage", "--by-user").exit_code == 0
    ada = document(run("files", "usage", "--user", "ada", "--json"))
    assert [(day["files"], day["bytes"], day["grown_bytes"]) for day in ada["growth"]] == [(1, 2400, 0)]
    assert "+0" in run("files", "usage", "--user", "ada", "--days", "1").stdout

    assert run("files", "usage", "--check", "bytes=1MB", "--check", "cost=1").exit_code == 0
    passed = run("files", "usage", "--check", "bytes=2KiB", "--check", "files=0", "--check", "cost=0")
    assert passed.exit_code == 1
    assert "bytes: 2,400, above 2,048" in passed.stderr
    assert "files: 1, above 0" in passed.stderr
    alerts = document(run("files", "usage", "--check", "files=0", "--json"), code=1)["alerts"]
    assert [alert["subject"] for alert in alerts] == ["files"]
    for wrong in ("bytes", "size=1", "bytes=much", "cost=much"):
        assert run("files", "usage", "--check", wrong).exit_code == 2

    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps([{"provider": "file", "item": "storage", "unit": 1, "price_nanos": 1_000_000_000}]))
    dear = document(run("files", "costs", "--set-prices", str(prices), "--json"))
    assert dear["projected_nanos"] >= 2400 * 10**9 * 0.99
    assert "USD" in run("files", "costs").stdout
    assert parsed(run("files", "costs", "--period", FORMER, "--json"))
    prices.write_text("[{}]")
    for wrong_use in (
        ["--set-prices", str(prices)],
        ["--set-prices", "missing"],
        ["--period", "soon"],
        ["--record", "--period", FORMER],
    ):
        assert run("files", "costs", *wrong_use).exit_code == 2


def test_without_a_blob_store_rows_are_shown_and_contents_named_missing(run: Command, url: str, tmp_path: Path) -> None:
    assert run("files", "list", "--url", url).exit_code == 0
    assert run("files", "uploads", "--url", url, "--json").exit_code == 0
    (tmp_path / "a").write_text("a")
    result = run("files", "upload", str(tmp_path / "a"), "--user", "ada", "--url", url)
    assert result.exit_code == 2
    assert "BLOB_URL" in result.stderr


def test_text_of_others_is_harmless_on_a_terminal(run: Command, blobs: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    assert run("files", "upload", str(tmp_path / "a"), "--user", "ada", "--name", "[bold]x").exit_code == 0
    assert "[bold]x" in run("files", "list").stdout


def test_the_doctor_looks_at_where_contents_lie(run: Command, blobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = document(run("doctor", "--json"))["contents"]
    assert (healthy["written and read"], healthy["signed urls"], healthy["problems"]) == (True, False, [])
    assert not [path for path in blobs.rglob("*") if path.is_file() and "doctor" in str(path)]
    assert document(run("doctor", "--no-probe", "--json"))["contents"]["written and read"] is None
    assert str(blobs) in run("doctor").stdout.replace("\n", "").replace(" ", "")

    monkeypatch.setenv("BLOB_SIGNING_SECRET", "a secret of at least thirty-two characters")
    monkeypatch.setenv("BLOB_PUBLIC_URL", "http://127.0.0.1:8000/files")
    signing = run("doctor", "--json")
    assert document(signing)["contents"]["signed urls"] is True
    assert "thirty-two" not in signing.output

    monkeypatch.setenv("BLOB_FALLBACK_URL", "s3://bucket?endpoint=http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-key")
    broken = run("doctor", "--json")
    assert document(broken, code=1)["contents"]["problems"]
    assert "hidden-key" not in broken.output
    assert document(broken, code=1)["health"]["status"] == "ok"

    monkeypatch.delenv("BLOB_FALLBACK_URL")
    monkeypatch.delenv("BLOB_URL")
    assert document(run("doctor", "--json"))["contents"] is None


def test_work_that_waits_is_listed_and_what_is_dead_revived(run: Command, file: str, url: str) -> None:
    async def prepare() -> str:
        async with create_data_access(url) as dal:
            await dal.files.queue.enqueue("thumbnail", file_id=file)
            dead = await dal.files.queue.enqueue("scan", file_id=file, max_attempts=1, priority=9)
            (taken,) = await dal.files.queue.take("me", tasks=["scan"])
            await dal.files.queue.fail(taken, "broken")
            return dead.id

    dead = asyncio.run(prepare())
    assert {task["task"] for task in document(run("files", "tasks", "--json"))["items"]} == {"thumbnail", "scan"}
    (found,) = document(run("files", "tasks", "--status", "dead", "--file", file, "--json"))["items"]
    assert (found["id"], found["last_error"]) == (dead, "broken")
    assert "broken" in run("files", "tasks", "--task", "scan").stdout
    assert run("files", "tasks", "--revive", dead).stdout.strip() == dead
    assert run("files", "tasks", "--revive", dead).exit_code == 1
    assert document(run("files", "tasks", "--status", "dead", "--json"))["items"] == []
