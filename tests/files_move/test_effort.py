"""The time that is left: of what files cost and of what bytes cost, by a clock that the tests own."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from dal.access import DataAccess
from dal.files_move.effort import Effort, Fit
from dal.files_move.moving import move
from dal.files_move.options import MoveOptions
from dal.files_move.pace import Pace
from dal.files_move.report import ContentsProgress
from dal.limits import BLOB_PIECE_BYTES, CONTENTS_BYTES_S
from tests.files_move.contents import Watched, keep


def told(sizes: list[int], file_s: float, byte_s: float, dice: Random, *, noise: float) -> list[tuple[float, float]]:
    """What a pace said was left, and what was, after every file: each file and each piece takes its time, or so."""
    clock, total_bytes, done = 0.0, sum(sizes), 0
    pace = Pace(lambda: clock)
    said: list[tuple[float, float]] = []
    for files, size in enumerate(sizes, 1):
        clock += file_s * dice.uniform(1 - noise, 1 + noise)
        for start in range(0, size, BLOB_PIECE_BYTES):
            piece = min(BLOB_PIECE_BYTES, size - start)
            clock += piece * byte_s * dice.uniform(1 - noise, 1 + noise)
            done += piece
            pace.look(done, files - 1, worked_bytes=done, worked_files=files - 1)
        pace.look(done, files, worked_bytes=done, worked_files=files)
        said.append((clock, pace.seconds_left(total_bytes - done, len(sizes) - files) or 0.0))
    return [(left, clock - at) for at, left in said]


def varied(dice: Random, count: int, largest: int) -> list[int]:
    return [round(100 * (largest / 100) ** dice.random()) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("large", ["last", "among"])
@pytest.mark.parametrize("byte_s", [1e-6, 2e-8])
def test_a_mix_of_small_and_large_is_told_within_a_fifth(seed: int, large: str, byte_s: float) -> None:
    """Also before the first large one: the small ones differ in size enough to tell."""
    dice = Random(seed)
    sizes = [*varied(dice, 3_000, 500_000), 40_000_000, 300_000_000]
    if large == "among":
        dice.shuffle(sizes)
    said = told(sizes, 0.01, byte_s, dice, noise=0.3)
    whole_s = said[0][1]
    for left, true in said[600:]:
        assert left == pytest.approx(true, rel=0.2, abs=0.01 * whole_s)


@pytest.mark.parametrize("seed", range(5))
def test_where_only_small_ones_have_passed_large_ones_do_not_seem_to_take_for_ever(seed: int) -> None:
    """20,000 of about 5 KB, and one of 5 GB: told from bytes of a second, the time would be 20 times too long."""
    dice = Random(seed)
    sizes = [*(dice.randrange(4_800, 5_200) for _ in range(20_000)), 5_000_000_000]
    said = told(sizes, 0.003, 1.0 / CONTENTS_BYTES_S, dice, noise=0.3)
    for left, true in said[2_000:-1]:
        assert true / 2 < left < 2 * true


def test_what_was_there_before_says_nothing_of_what_is_left() -> None:
    clock = 0.0
    pace = Pace(lambda: clock)
    assert pace.seconds_left(0, 0) == 0.0
    assert pace.seconds_left(1, 1) is None
    for number in range(1, 1001):  # a thousand of a second are seen to be there
        clock += 0.001
        pace.look(number * 10**6, number, worked_bytes=0, worked_files=0)
    assert pace.seconds_left(10**9, 1000) == pytest.approx(1.0, rel=0.01)  # as if the rest were, too
    for number in range(1, 101):
        clock += 0.5
        pace.look((1000 + number) * 10**6, 1000 + number, worked_bytes=number * 10**6, worked_files=number)
    assert pace.seconds_left(900 * 10**6, 900) == pytest.approx(450.0, rel=0.01)


def test_a_speed_that_changes_is_followed() -> None:
    fit = Fit()
    for _ in range(500):
        fit.add(0.2, 100, 1_000)
        fit.add(1.0, 0, 10_000_000)
    for _ in range(1000):
        fit.add(0.2, 10, 100)
        fit.add(1.0, 0, 1_000_000)
    effort = fit.effort()
    assert effort is not None
    assert effort.file_s == pytest.approx(0.02, rel=0.1)
    assert effort.byte_s == pytest.approx(1e-6, rel=0.1)


@pytest.mark.parametrize(
    ("looks", "effort"),
    [
        ([], None),
        ([(1.0, 10, 0)], Effort(0.1, 1 / CONTENTS_BYTES_S)),
        ([(1.0, 0, 1_000)], Effort(0.0, 0.001)),
        ([(1.0, 10, 0), (1.0, 0, 1_000)], Effort(0.1, 0.001)),
        ([(1.0, 10, 2_000), (1.0, 20, 1_000)], Effort(0.1 / 3, 0.001 / 3)),
        ([(1.0, 100, 10_000), (1.0, 100, 1_000)], Effort(0.01, 0.0)),  # bytes cost nothing
        ([(0.0, 1, 1), (1.0, 0, 0), (1.0, 2, 0)], Effort(0.5, 1 / CONTENTS_BYTES_S)),
    ],
)
def test_what_fits_a_few_looks(looks: list[tuple[float, int, int]], effort: Effort | None) -> None:
    fit = Fit()
    for seconds, files, size in looks:
        fit.add(seconds, files, size)
    found = fit.effort()
    if effort is None or found is None:
        assert found == effort
    else:
        assert found == pytest.approx(effort, rel=0.02, abs=1e-12)


async def test_a_move_tells_how_long_it_takes_before_the_large_ones_come(
    dal: DataAccess, source: Watched, target: Watched, user_id: str
) -> None:
    dice = Random(1)
    sizes = varied(dice, 400, 900_000)
    contents = {f"{number:04}": b"s" * size for number, size in enumerate(sizes)}
    await keep(dal, source, user_id, contents | {"large": b"l" * 60_000_000})
    clock, rate, file_s = 0.0, 2_000_000, 0.1
    said: list[tuple[float, ContentsProgress]] = []

    async def sleep(seconds: float) -> None:
        nonlocal clock
        clock += max(0.0, seconds)
        await asyncio.sleep(0)

    async def take_time(key: str) -> None:
        nonlocal clock
        clock += file_s

    target.before["put"] = take_time
    report = await move(
        source,
        target,
        dal.store,
        options=MoveOptions(
            jobs=1,
            limit_bytes_s=rate,
            on_progress=lambda now: said.append((clock, now)),
            timer=lambda: clock,
            sleep=sleep,
        ),
    )
    assert report.copied == 401
    before_large = [(at, now) for at, now in said if 40 <= now.files < 400]
    assert len(before_large) > 300
    for at, now in before_large:
        assert now.eta_s == pytest.approx(clock - at, rel=0.2)
