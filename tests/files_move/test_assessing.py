"""What an assessment tells before a move begins."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from dal.access import DataAccess
from dal.blobs.base import BlobInfo, Data
from dal.blobs.memory import MemoryBlobStore
from dal.files_move import assessing, tally
from dal.files_move.assessing import Assessment, assess
from dal.files_move.moving import move
from dal.files_move.options import DEFAULTS, MoveOptions
from dal.files_move.report_html import assessment_page
from dal.files_move.tally import Amount, Tally, size_name
from dal.files_move.trial import Sampled, Speed, trial
from dal.limits import CONTENTS_TRIAL_FILES
from tests.files_move.contents import Watched, checksum, everything, keep

LATER = datetime.now(UTC) + timedelta(days=1)  # what is there now has been there for long


async def assessed(source: Watched, target: Watched | None, dal: DataAccess, **given: Any) -> Assessment:
    options = replace(given.pop("options", DEFAULTS), clock=lambda: LATER)
    return await assess(source, target, dal.store, random=Random(1), options=options, **given)


async def test_an_assessment_counts_what_is_there_and_writes_nothing_that_stays(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {"a": b"", "b": b"same" * 300, "c": b"same" * 300, "d": b"d" * 20_000})
    made = await assessed(source, target, dal)
    assert made.tally.total == made.moving == Amount(4, 22_400)
    assert made.tally.types == {"application/octet-stream": Amount(4, 22_400)}
    assert made.tally.duplicates == Amount(1, 1200)
    assert [(name, amount.files) for name, amount in made.tally.histogram() if amount.files] == [
        ("empty", 1),
        ("below 16 KiB", 2),
        ("below 256 KiB", 1),
    ]
    assert made.problems.counts == {}
    assert made.speed is not None
    assert made.speed.tried == Amount(4, 22_400)
    assert made.move_s is not None
    assert await everything(target) == {}
    assert "4 files, 21.9 KiB; no problem" in assessment_page(made, source="a", target="b")

    await move(source, target, dal.store)
    after = await assessed(source, target, dal)
    assert (after.moving, after.speed) == (Amount(), None)


async def test_an_assessment_names_what_is_wrong(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    await keep(dal, source, user_id, {"a": b"a", "b": b"b", "c": b"c"})
    await source.put("b", b"longer")
    await source.put("c", b"C")
    await source.put("left/over", b"nobody's")
    await dal.files.create(user_id, "lost", storage_key="lost", file_size=1)
    await dal.files.create(user_id, "odd", storage_key="../odd name", file_size=1)
    made = await assessed(source, None, dal)
    assert {problem.key: problem.kind for problem in made.problems.samples} == {
        "b": "corrupt",
        "c": "corrupt",
        "left/over": "unowned",
        "lost": "missing",
        "../odd name": "name",
    }
    assert made.problems.total == 4  # bytes that nobody names are in nobody's way
    assert "lost" in assessment_page(made, source="a", target=None)
    # A blob that was stored just now may have its row on the way.
    fresh = await assess(source, None, dal.store)
    assert "unowned" not in fresh.problems.counts


async def test_with_reading_corrupt_bytes_and_duplicates_are_found_by_content(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    source.sums = False
    await keep(dal, source, user_id, {"a": b"right", "b": b"b"})
    await source.put("x", b"b")
    source.spoil("a", b"wrong")
    assert (await assessed(source, target, dal, try_out=False)).tally.duplicates.files == 0
    made = await assessed(source, target, dal, read=True, try_out=False)
    assert [(problem.kind, problem.key) for problem in made.problems.samples if problem.kind == "corrupt"] == [
        ("corrupt", "a")
    ]
    assert made.tally.duplicates == Amount(1, 1)
    assert (made.speed, made.is_read) == (None, True)


async def test_a_trial_tells_the_time_of_a_blob_from_the_time_of_a_byte(source: Watched, target: Watched) -> None:
    clock = 0.0
    for number in range(10):
        await source.put(f"small{number}", b"s" * 100)
    for number in range(2):
        await source.put(f"large{number}", b"l" * 5_000_000)

    async def take_time(key: str) -> None:
        nonlocal clock
        clock += 5.01 if key.startswith("large") else 0.01

    source.after["get"] = take_time
    sample = [Sampled(info.key, info.size) async for info in source.list()]
    speed = await trial(
        lambda key, end: source.get(key, end=end), target, sample, options=MoveOptions(jobs=1, timer=lambda: clock)
    )
    assert speed is not None
    assert speed.byte_s == pytest.approx(5.0 / 5_000_000, rel=0.001)
    assert speed.file_s == pytest.approx(0.01, rel=0.02)
    assert speed.seconds(Amount(1000, 1_000_000_000)) == pytest.approx(10 + 1002, rel=0.01)
    assert await everything(target) == {}


async def test_a_trial_is_of_a_few(dal: DataAccess, source: Watched, target: Watched, user_id: str) -> None:
    await keep(dal, source, user_id, {f"{number:04}": b"x" * number for number in range(300)})
    made = await assessed(source, target, dal)
    assert made.speed is not None
    assert made.speed.tried.files == CONTENTS_TRIAL_FILES


async def test_a_large_blob_among_small_ones_is_tried_in_part_and_its_bytes_are_reckoned(
    dal: DataAccess, source: Watched, target: Watched, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in a thousand is hardly ever in a sample: without it bytes would seem to cost nothing."""
    monkeypatch.setattr(assessing, "CONTENTS_TRIAL_FILES", 20)
    monkeypatch.setattr(assessing, "CONTENTS_TRIAL_BYTES", 6_000_000)
    await keep(dal, source, user_id, {f"{number:04}": b"x" * (100 + number * 7 % 3000) for number in range(400)})
    await keep(dal, source, user_id, {"large": b"l" * 20_000_000})
    clock, file_s, byte_s = 0.0, 0.02, 1e-7

    async def take_time(key: str, data: Data, **options: Any) -> BlobInfo:
        nonlocal clock
        stored = await MemoryBlobStore.put(target, key, data, **options)
        clock += file_s + stored.size * byte_s
        return stored

    monkeypatch.setattr(target, "put", take_time)
    made = await assessed(source, target, dal, options=MoveOptions(jobs=1, timer=lambda: clock))
    assert made.speed is not None
    assert made.speed.tried.files == 20
    assert 3_000_000 < made.speed.tried.bytes < 3_100_000
    assert made.move_s == pytest.approx(made.moving.files * file_s + made.moving.bytes * byte_s, rel=0.05)
    assert await everything(target) == {}


def test_a_tally_remembers_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "CONTENTS_DISTINCT", 3)
    counted = Tally()
    for number in (0, 1, 2, 3, 3, 1):
        counted.add(10, f"text/{number % 2}; charset=x", checksum(bytes([number])))
    assert (counted.duplicates, counted.is_partial) == (Amount(1, 10), True)
    assert counted.types == {"text/0": Amount(2, 20), "text/1": Amount(4, 40)}


def test_the_commonest_types_stand_alone_and_the_rest_together() -> None:
    counted = Tally()
    for number in range(30):
        counted.add(number, f"x/{number:02}", None)
    shown = counted.commonest()
    assert (len(shown), shown[0], shown[-1][0]) == (21, ("x/29", Amount(1, 29)), "others")
    assert sum(amount.bytes for _, amount in shown) == counted.total.bytes
    assert counted.unhashed == 30


@pytest.mark.parametrize(
    ("size", "name"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (5 * 1024**3, "5 GiB"), (2**50, "1,024 TiB")],
)
def test_sizes_are_named_as_people_do(size: int, name: str) -> None:
    assert size_name(size) == name


def test_speeds_add_up() -> None:
    assert Speed(0.5, 0.001, Amount(1, 1)).seconds(Amount(10, 1000)) == 6
