"""`dal files assess | move | verify | rollback`, as people and programs see them, and killed while they work."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dal.blobs.factory import bare_blob_store
from dal.factory import create_data_access
from dal.files_move import turn
from tests.cli.conftest import TIMEOUT_S, Command, command_line, document

FILES = 120
LARGE = 16 * 1024 * 1024


def content(number: int) -> bytes:
    return f"content {number} ".encode() * (number % 200)


@pytest.fixture
def old(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A blob store with files in it, whose rows are in the store that the environment names."""
    monkeypatch.setenv("DATA_STORAGE_TYPE", "sqlite")
    monkeypatch.setenv("SQLITE_PATH", url.removeprefix("sqlite:"))
    address = f"file:{tmp_path / 'old'}"

    async def fill() -> None:
        async with create_data_access(url, blob_url=address) as dal:
            ada = await dal.users.get_by_clerk_id("ada")
            assert ada is not None
            for number in range(FILES):
                await dal.files.upload(ada.id, f"{number}.txt", content(number), mime_type="text/plain")

    asyncio.run(fill())
    return address


@pytest.fixture
def new(tmp_path: Path) -> str:
    return f"file:{tmp_path / 'new'}"


def held(address: str) -> dict[str, bytes]:
    """Every blob of a store by its key."""

    async def read() -> dict[str, bytes]:
        store = bare_blob_store(address)
        await store.open()
        found = {info.key: await (await store.get(info.key)).read() async for info in store.list()}
        await store.close()
        return found

    return asyncio.run(read())


def put(address: str, key: str, data: bytes | None) -> None:
    """Stores a blob, or removes it."""

    async def work() -> None:
        store = bare_blob_store(address)
        await store.open()
        await (store.delete([key]) if data is None else store.put(key, data))
        await store.close()

    asyncio.run(work())


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_contents_are_assessed_moved_verified_and_moved_back(
    run: Command, old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = ("--from", old, "--to", new)
    page, data = tmp_path / "assess.html", tmp_path / "assess.json"
    result = run("files", "assess", *ends, "--report", str(page))
    assert result.exit_code == 0, result.output
    assert f" {FILES} " in result.stdout
    assert "a move takes about" in result.stderr
    assert f"{FILES} files" in page.read_text()
    made = document(run("files", "assess", *ends, "--read", "--no-trial", "--json", "--report", str(data)))
    assert made == json.loads(data.read_text())
    assert (made["moving"]["files"], made["speed"], made["duplicates"]["files"]) == (FILES, None, 0)
    assert page.stat().st_mode & 0o777 == 0o600

    absent = run("files", "verify", *ends)
    assert absent.exit_code == 1
    assert f"problems: {FILES} absent" in absent.stderr

    moved = run("files", "move", *ends, "--limit", "500MiB/s", "--jobs", "4", "--report", str(page))
    assert moved.exit_code == 0, moved.output
    assert f"{FILES} copied and verified" in moved.stderr
    assert f"Next: dal files verify --from {old} --to {new}" in moved.stderr
    assert "copied and verified" in page.read_text()
    assert held(old) == held(new)

    # The application goes on with the new store, and falls back on the old one.
    monkeypatch.setenv("BLOB_URL", new)
    monkeypatch.setenv("BLOB_FALLBACK_URL", old)
    (tmp_path / "late").write_text("uploaded since")
    late = run("files", "upload", str(tmp_path / "late"), "--user", "ada").stdout.strip()
    verified = run("files", "verify", *ends, "--deep", "--sample", "50", "--json", "--report", str(data))
    report = lines(verified.stdout)[-1]
    assert (verified.exit_code, report["event"], report["clean"], report["extra"]) == (0, "report", True, 1)
    assert 0 < report["read"] < FILES
    assert "unset BLOB_FALLBACK_URL" in verified.stderr

    back = run("files", "rollback", *ends)
    assert back.exit_code == 0, back.output
    assert "1 copied and verified" in back.stderr
    assert held(old) == held(new)
    monkeypatch.setenv("BLOB_URL", old)
    monkeypatch.delenv("BLOB_FALLBACK_URL")
    assert run("files", "download", late, str(tmp_path / "back")).exit_code == 0
    assert (tmp_path / "back").read_text() == "uploaded since"


def test_problems_are_told_once_each_and_make_it_fail(run: Command, old: str, new: str) -> None:
    first, second, *_ = sorted(key for key, data in held(old).items() if data)
    put(old, first, b"other bytes")
    put(old, second, None)
    assessed = document(run("files", "assess", "--from", old, "--json"), code=1)
    counts = assessed["problems"]["counts"]
    assert (counts["corrupt"], counts["missing"]) == (1, 1)
    result = run("files", "move", "--from", old, "--to", new, "--json")
    assert result.exit_code == 1
    told = lines(result.stdout)
    assert {line["key"]: line["kind"] for line in told if line["event"] == "problem"} == {
        first: "corrupt",
        second: "missing",
    }
    assert told[-1]["problems"]["counts"]["corrupt"] == 1
    assert sorted(held(new)) == sorted(set(held(old)) - {first})


def test_a_directory_becomes_files_of_those_it_belongs_to(run: Command, old: str, new: str, tmp_path: Path) -> None:
    media = tmp_path / "media"
    for path in ("a.txt", "avatars/b.png", "avatars/yuki/c.txt", "nobody/d.txt"):
        (media / path).parent.mkdir(parents=True, exist_ok=True)
        (media / path).write_text(f"content of {path}")
    (tmp_path / "map.csv").write_text("a.txt,ada\navatars/,ada\navatars/yuki/,yuki\n")
    mapped = ("--from-dir", str(media), "--to", new, "--map", str(tmp_path / "map.csv"))
    assessed = document(run("files", "assess", *mapped, "--json"), code=1)
    assert (assessed["files"], assessed["problems"]["counts"]["name"]) == (3, 1)
    ends = (*mapped, "--user", "ada")
    assert document(run("files", "assess", *ends, "--json"))["files"] == 4
    moved = run("files", "move", *ends)
    assert moved.exit_code == 0, moved.output
    assert "4 copied and verified" in moved.stderr
    again = lines(run("files", "move", *ends, "--json").stdout)[-1]
    assert (again["there"], again["copied"]) == (4, 0)
    (record,) = document(run("files", "list", "--user", "yuki", "--json"))["items"]
    assert record["filename"] == "c.txt"
    assert run("files", "verify", *ends, "--deep").exit_code == 0
    (media / "a.txt").write_text("changed")
    changed = run("files", "verify", *ends)
    assert (changed.exit_code, "1 differs" in changed.stderr) == (1, True)

    (tmp_path / "late.txt").write_text("uploaded since")
    late = run("files", "upload", str(tmp_path / "late.txt"), "--user", "ada", "--blob-url", new).stdout.strip()
    back = run("files", "rollback", *ends)
    # What has no bytes in this store (the files of `old`) cannot come back from it, and is told.
    assert back.exit_code == 1
    (written,) = (media / "since-the-move").rglob(f"{late}/late.txt")
    assert written.read_text() == "uploaded since"


@pytest.mark.parametrize("command", ["assess", "move", "verify", "rollback"])
@pytest.mark.parametrize("source", [("--from", "file:{}/typo"), ("--from-dir", "{}/typo", "--user", "ada")])
def test_a_source_that_is_not_there_is_refused_and_nothing_made(
    run: Command, old: str, command: str, source: tuple[str, ...], tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    result = run("files", command, *(word.format(tmp_path) for word in source), "--to", f"file:{tmp_path}/new")
    assert result.exit_code == 2, result.output
    assert f"{source[0]}: there is no directory {tmp_path}/typo" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["verify", "rollback"])
def test_a_target_that_is_read_has_to_be_there(run: Command, old: str, command: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    result = run("files", command, "--from", old, "--to", f"file:{tmp_path}/typo")
    assert result.exit_code == 2, result.output
    assert f"--to: there is no directory {tmp_path}/typo" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--from", "file:a"],
        ["--to", "file:b"],
        ["--from", "file:a", "--from-dir", "media", "--to", "file:b"],
        ["--from", "file:a", "--to", "file:a"],
        ["--from", "file:a", "--to", "file:b", "--user", "ada"],
        ["--from", "file:a", "--to", "file:b", "--limit", "0"],
        ["--from", "file:a", "--to", "file:b", "--limit", "fast"],
        ["--from", "file:a", "--to", "http://b"],
        ["--from-dir", "media", "--to", "file:b"],
        ["--from-dir", "nowhere", "--to", "file:b", "--user", "ada"],
        ["--from-dir", "media", "--to", "file:b", "--map", "missing.csv"],
        ["--from-dir", "media", "--to", "file:b", "--map", "one.csv"],
        ["--from", "file:a", "--to", "file:b", "--report", "/nowhere/r.html"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_refused(run: Command, url: str, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "one.csv").write_text("path\n")
    result = run("files", "move", "--url", url, *arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output


def test_killed_again_and_again_it_ends_with_everything_copied_once(old: str, new: str, url: str) -> None:
    """SIGKILL among the small ones and within the large one; the last run copies what is left and no more."""
    put(old, "zzz/large", os.urandom(LARGE))
    expected = held(old)
    arguments = command_line("files", "move", "--from", old, "--to", new, "--json", "--jobs", "2")
    for files in (1, FILES):
        # The large one alone takes three seconds and a line is printed each second: neither run comes to its end.
        with subprocess.Popen(
            [*arguments, "--limit", f"{LARGE // 3}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            try:
                assert process.stdout is not None
                assert any(json.loads(line)["files"] >= files for line in process.stdout)
            finally:
                process.kill()
    done = subprocess.run(arguments, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    report = lines(done.stdout.decode())[-1]
    assert (report["copied"] + report["there"], report["files"]) == (FILES + 1, FILES + 1)
    assert 0 < report["copied"] < FILES
    assert held(new) == expected
    assert turn.KEY not in held(new)
