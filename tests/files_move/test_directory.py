"""A plain directory on its way into files, while its programs go on writing it."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dal.access import DataAccess
from dal.backends.memory import MemoryStore
from dal.errors import InvalidInputError, NotFoundError
from dal.files.options import FileOptions
from dal.files_move import directory, tree
from dal.files_move.directory import move_directory
from dal.files_move.directory_checks import assess_directory, verify_directory
from dal.files_move.options import MoveOptions
from dal.files_move.report import ContentsProgress, ContentsReport
from dal.files_move.tally import Amount
from dal.files_move.throttle import Throttle, untold
from dal.limits import CONTENTS_LOOKS
from dal.models import FileRecord
from tests.files_move.contents import Watched, checksum, everything

CONTENTS = {
    "avatars/a.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
    "avatars/b.txt": b"b",
    "docs/2024/report.txt": b"report " * 1000,
    "docs/2024/same.txt": b"report " * 1000,
    "empty": b"",
    "naïve name (1).txt": b"text",
    "zz/large.bin": b"0123456789abcdef" * 200_000,
}


@pytest_asyncio.fixture
async def dal(target: Watched) -> AsyncIterator[DataAccess]:
    async with DataAccess(MemoryStore(), blobs=target) as access:
        yield access


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, content in CONTENTS.items():
        place = tmp_path / "media" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return tmp_path / "media"


async def moved(root: Path, dal: DataAccess, target: Watched, owner: str | None, **options: Any) -> ContentsReport:
    return await move_directory(root, dal.files, target, dal.store, lambda _: owner, **options)


async def verified(root: Path, dal: DataAccess, target: Watched, owner: str, **options: Any) -> ContentsReport:
    return await verify_directory(root, target, dal.store, lambda _: owner, **options)


async def files_of(dal: DataAccess) -> list[FileRecord]:
    return (await dal.files.list(limit=1000)).items


async def test_every_path_becomes_a_file_once(root: Path, dal: DataAccess, target: Watched, user_id: str) -> None:
    before = await assess_directory(root, target, dal.store, lambda _: user_id)
    size = sum(map(len, CONTENTS.values()))
    assert before.tally.total == before.moving == Amount(len(CONTENTS), size)
    assert before.tally.types["text/plain"].files == 4
    assert before.speed is not None
    assert await everything(target) == {}
    absent = await verified(root, dal, target, user_id)
    assert absent.problems.counts == {"absent": len(CONTENTS)}

    told: list[ContentsProgress] = []
    report = await moved(root, dal, target, user_id, options=MoveOptions(on_progress=told.append))
    assert (report.copied, report.copied_bytes, report.problems.counts) == (len(CONTENTS), size, {})
    assert (told[-1].files, told[-1].bytes, told[-1].total_bytes) == (len(CONTENTS), size, size)
    found = {str(record.metadata["moved_from"]["path"]): record for record in await files_of(dal)}  # type: ignore[index,call-overload]
    assert set(found) == set(CONTENTS)
    for path, record in found.items():
        assert await dal.files.read(record.id) == CONTENTS[path]
        assert (record.filename, record.user_id) == (path.rpartition("/")[2], user_id)
        assert record.checksum == checksum(CONTENTS[path])
        assert record.id == str(uuid.uuid5(tree.NAMESPACE, f"{user_id}/{path}"))
    assert found["avatars/a.png"].mime_type == "image/png"
    assert (await dal.files.usage(user_id)).used_bytes == size
    for deep in (False, True):
        check = await verified(root, dal, target, user_id, deep=deep)
        assert (check.there, check.read, check.problems.counts) == (len(CONTENTS), len(CONTENTS) * deep, {})

    puts = target.calls["put"]
    again = await moved(root, dal, target, user_id)
    assert (again.there, again.copied, target.calls["put"]) == (len(CONTENTS), 0, puts)
    after = await assess_directory(root, target, dal.store, lambda _: user_id, read=True)
    assert (after.moving, after.tally.duplicates) == (Amount(), Amount(1, 7000))


async def test_what_the_application_did_since_is_not_undone(
    root: Path, dal: DataAccess, target: Watched, user_id: str
) -> None:
    await moved(root, dal, target, user_id)
    renamed, deleted = (uuid.uuid5(tree.NAMESPACE, f"{user_id}/{path}") for path in ("empty", "avatars/b.txt"))
    await dal.files.rename(str(renamed), "full.txt")
    await dal.files.delete(str(deleted))
    (root / "docs/2024/new.txt").write_bytes(b"new")
    os.utime(root / "docs/2024/report.txt", (1, 1))  # touched, and the same
    (root / "docs/2024/same.txt").write_bytes(b"another")
    report = await moved(root, dal, target, user_id)
    assert (report.copied, report.there, report.kept) == (1, len(CONTENTS) - 1, 1)
    assert [(found.kind, found.key) for found in report.problems.samples] == [("differs", "docs/2024/same.txt")]
    assert (await dal.files.get(str(renamed))).filename == "full.txt"  # type: ignore[union-attr]
    assert await dal.files.get(str(deleted)) is None
    check = await verified(root, dal, target, user_id)
    assert check.problems.counts == {"differs": 1}


async def test_links_odd_names_and_paths_of_nobody_are_told_and_left(
    root: Path, dal: DataAccess, target: Watched, user_id: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("outside")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "linked").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(root / "pipe")
    os.close(os.open(os.fsencode(root) + b"/\xff.txt", os.O_CREAT | os.O_WRONLY))
    report = await move_directory(
        root, dal.files, target, dal.store, lambda path: None if path.startswith("docs/") else user_id
    )
    assert report.copied == len(CONTENTS) - 2
    assert report.problems.counts == {"name": 6}
    assert {found.key for found in report.problems.samples} == {
        "link",
        "linked",
        "pipe",
        "\\xff.txt".replace("\\xff", "\\udcff"),
        "docs/2024/report.txt",
        "docs/2024/same.txt",
    }
    with pytest.raises(InvalidInputError, match="no such directory"):
        await moved(tmp_path / "nothing", dal, target, user_id)


async def test_a_link_that_takes_a_files_place_leads_nowhere(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    (root / "link").symlink_to(tmp_path / "secret")
    leaf = tree.Leaf("link", 7, (tmp_path / "secret").stat().st_mtime_ns)
    with pytest.raises(NotFoundError, match="cannot be read"):
        await tree.checksum_of_leaf(root, leaf, Throttle(None), untold)
    os.mkfifo(root / "pipe")
    with pytest.raises(tree.ChangedError):
        await tree.checksum_of_leaf(root, leaf._replace(path="pipe"), Throttle(None), untold)
    assert await tree.look_again(root, leaf) is None


@pytest.mark.parametrize("size", [1000, 3_000_000])
async def test_a_path_that_changes_while_it_is_read_is_read_again_and_never_stored_torn(
    root: Path, dal: DataAccess, target: Watched, user_id: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, ever = root / "once", root / "ever"
    once.write_bytes(b"1" * size)
    ever.write_bytes(b"1" * size)
    left = {str(once): 1, str(ever): 100}
    open_file = tree._open

    def changing(path: Path) -> int:
        if left.get(str(path), 0):
            left[str(path)] -= 1
            file = open_file(path)
            path.write_bytes(b"2" * (size + left[str(path)]))
            return file
        return open_file(path)

    monkeypatch.setattr(tree, "_open", changing)
    report = await moved(root, dal, target, user_id)
    assert report.problems.counts == {"changing": 1}
    assert left[str(ever)] == 100 - CONTENTS_LOOKS
    file = await dal.files.get(str(uuid.uuid5(tree.NAMESPACE, f"{user_id}/once")))
    assert file is not None
    assert file.checksum == checksum(b"2" * size)
    assert await dal.files.get(str(uuid.uuid5(tree.NAMESPACE, f"{user_id}/ever"))) is None
    assert len(await files_of(dal)) == len(CONTENTS) + 1


async def test_a_path_that_goes_meanwhile_is_no_problem(
    root: Path, dal: DataAccess, target: Watched, user_id: str
) -> None:
    async def go(key: str) -> None:
        (root / "zz/large.bin").unlink(missing_ok=True)

    target.before["put"] = go
    report = await moved(root, dal, target, user_id, options=MoveOptions(jobs=1))
    assert (report.copied, report.problems.counts) == (len(CONTENTS) - 1, {})


async def test_what_files_refuse_is_a_problem_of_its_path(root: Path, target: Watched) -> None:
    options = FileOptions(max_file_bytes=5_000, quota_files=3)
    async with DataAccess(MemoryStore(), blobs=target, files=options) as dal:
        owner = (await dal.users.create()).id
        report = await moved(root, dal, target, owner, options=MoveOptions(jobs=1))
        assert report.copied == 3
        assert report.problems.counts == {"failed": len(CONTENTS) - 3}
        refused = {found.key: found.text.partition(":")[0] for found in report.problems.samples}
        assert refused["docs/2024/report.txt"] == "LimitExceededError"
        assert refused["naïve name (1).txt"] == "QuotaExceededError"
        assert len(await files_of(dal)) == 3


async def test_a_file_that_holds_other_bytes_than_were_read_is_told(
    root: Path, dal: DataAccess, target: Watched, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = dal.files.upload

    async def lying(owner: str, name: str, data: Any, **options: Any) -> FileRecord:
        stored = await upload(owner, name, data, **options)
        return stored.model_copy(update={"checksum": checksum(b"?")}) if name == "b.txt" else stored

    monkeypatch.setattr(dal.files, "upload", lying)
    report = await moved(root, dal, target, user_id)
    assert [(found.kind, found.key) for found in report.problems.samples] == [("corrupt", "avatars/b.txt")]
    assert report.copied == len(CONTENTS) - 1


async def test_a_check_finds_bytes_that_are_gone_or_wrong(
    root: Path, dal: DataAccess, target: Watched, user_id: str
) -> None:
    await moved(root, dal, target, user_id)
    by_path = {str(r.metadata["moved_from"]["path"]): r.storage_key for r in await files_of(dal)}  # type: ignore[index,call-overload]
    await target.delete([by_path["empty"]])
    await target.put(by_path["avatars/b.txt"], b"bb")
    target.spoil(by_path["docs/2024/same.txt"], b"REPORT " * 1000)
    shallow = await verified(root, dal, target, user_id)
    known = {"empty": "missing", "avatars/b.txt": "corrupt"}
    assert {found.key: found.kind for found in shallow.problems.samples} == known
    deep = await verified(root, dal, target, user_id, deep=True)
    assert {found.key: found.kind for found in deep.problems.samples} == known | {"docs/2024/same.txt": "corrupt"}


async def test_more_paths_than_one_read_asks_for(
    dal: DataAccess, target: Watched, user_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "CONTENTS_PAGE_ROWS", 10)
    for number in range(35):
        (tmp_path / f"{number:03}").write_text(str(number))
    assert (await moved(tmp_path, dal, target, user_id)).copied == 35
    assert (await moved(tmp_path, dal, target, user_id)).there == 35
