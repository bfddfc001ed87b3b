"""What a check of contents finds, and what it does not take for a difference."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from dal.access import DataAccess
from dal.files_move.moving import move
from dal.files_move.options import MoveOptions
from dal.files_move.report import ContentsReport, Problem
from dal.files_move.report_html import report_page
from dal.files_move.verifying import verify
from tests.files_move.contents import Watched, everything, keep


def some(count: int) -> dict[str, bytes]:
    return {f"{number:04}": f"content {number}".encode() * (number % 5) for number in range(count)}


async def checked(source: Watched, target: Watched, dal: DataAccess, **options: Any) -> ContentsReport:
    return await verify(source, target, dal.store, random=Random(1), **options)


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("deep", [True, False])
async def test_equal_stores_are_verified(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, sums: bool, deep: bool
) -> None:
    source.sums = target.sums = sums
    await keep(dal, source, user_id, some(150))
    await source.put("no/row", b"bytes without a row")
    await move(source, target, dal.store)
    await keep(dal, target, user_id, {"zzz/later": b"uploaded since"})
    before = await everything(target)
    report = await checked(source, target, dal, deep=deep)
    assert (report.files, report.there, report.extra, report.problems.counts) == (152, 152, 1, {})
    assert report.read == (152 if deep else 0)
    assert await everything(target) == before
    assert "152 of 152 verified" in report_page(report, source="a", target="b")


@pytest.mark.parametrize("deep", [True, False])
async def test_everything_that_is_wrong_is_named(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, deep: bool
) -> None:
    await keep(dal, source, user_id, some(9))
    await source.put("bare", b"no row")
    await source.put("bare-too", b"no row")
    await move(source, target, dal.store)
    await target.delete(["0001"])
    await target.put("0002", b"other")
    await target.put("0003", b"CONTENT 3" * 3)
    await target.put("bare", b"NO ROW")
    await target.put("bare-too", b"longer than it")
    await dal.files.create(user_id, "lost", storage_key="0004/lost", file_size=1)
    target.spoil("0006", b"CONTENT 6")
    found: list[Problem] = []
    report = await checked(source, target, dal, deep=deep, options=MoveOptions(on_problem=found.append))
    kinds = {problem.key: problem.kind for problem in found}
    # A store that lies about the checksum of what it holds is believed unless its bytes are read.
    assert kinds.pop("0006", None) == ("corrupt" if deep else None)
    assert kinds == {
        "0001": "absent",
        "0002": "corrupt",
        "0003": "corrupt" if deep else "differs",
        "0004/lost": "missing",
        "bare": "differs",
        "bare-too": "differs",
    }
    assert report.problems.total == len(found)
    assert not report.is_clean
    page = report_page(report, source="<a>", target="b")
    assert "0004/lost" in page
    assert "<a>" not in page


async def test_a_row_that_only_the_target_has_bytes_for_is_verified_against_the_row(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, target, user_id, {"a": b"right", "b": b"right"})
    await target.put("b", b"wrong")
    report = await checked(source, target, dal)
    assert [(found.kind, found.key) for found in report.problems.samples] == [("corrupt", "b")]


async def test_a_sample_looks_into_about_so_many_and_for_all_others_at_their_sizes(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, some(400))
    await move(source, target, dal.store)
    target.calls.clear()
    await target.delete(["0399"])
    report = await checked(source, target, dal, deep=True, sample=40)
    assert 20 <= report.read <= 60
    assert target.calls["get"] == report.read
    assert report.problems.counts == {"absent": 1}


async def test_what_goes_during_the_check_is_no_difference(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, some(30))
    await move(source, target, dal.store)

    async def delete(key: str) -> None:
        del target.before["get"]
        for gone in ("0010", "0029"):
            record = await dal.files.get_by_storage_key(gone)
            assert record is not None
            await dal.files.delete(record.id)
            await target.delete([gone])
            await source.delete([gone])
        await target.delete(["0011"])

    target.before["get"] = delete
    report = await checked(source, target, dal, deep=True)
    assert {problem.key for problem in report.problems.samples} == {"0011"}
