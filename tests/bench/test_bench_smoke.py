"""The benchmark harness runs, measures both sides of every row, and says what it found. No time is judged."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench import report
from tests.bench.__main__ import main
from tests.bench.data import Data, Scale
from tests.bench.measure import Pace, Side, Stats, compare
from tests.bench.on_blobs import BlobsStage
from tests.bench.on_d1 import D1Stage
from tests.bench.on_file import FileStage
from tests.bench.on_files import FilesStage
from tests.bench.on_moves import MovesStage
from tests.bench.on_nothing import NothingStage
from tests.bench.on_sqlite import SqliteStage
from tests.bench.run import run
from tests.bench.stage import Stage
from tests.bench.subject import Subject
from tests.bench.targets import Measure, Target

TINY = Scale(chats=100, chat_messages=2, lengths=(3, 4, 25), users=2, memory_items=2, bulk_messages=50, large_mib=2)
TINY_MOVES = TINY._replace(chats=8)
TINY_D1 = TINY._replace(chats=16, lengths=(3, 4, 400))  # every request takes a millisecond
ONCE = Pace(rounds=1, round_s=0.0, warm_up_s=0.0, most_calls=16)


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=250)


@pytest.mark.parametrize("stage", [NothingStage, SqliteStage, FileStage, FilesStage], ids=lambda stage: stage.backend)
async def test_every_row_is_measured_beside_each_of_its_baselines(stage: type[Stage], console: Console) -> None:
    found, _ = await run(console, ONCE, TINY, words=[stage.backend])

    assert len(found) == sum(len(row.against) for row in stage.rows)
    assert all(c.ours.calls > 0 and c.theirs.calls > 0 for c in found)
    assert stage.backend in console.export_text()


@pytest.mark.usefixtures("d1_engine")  # where it cannot start, that is said
async def test_every_row_of_d1_is_measured(console: Console) -> None:
    found, engines = await run(console, ONCE, TINY_D1, words=["d1"])

    assert len(found) == sum(len(row.against) for row in D1Stage.rows)
    assert engines["d1"].startswith("workerd ")
    alone = [c for c in found if "16 tasks" not in c.path and "bulk" not in c.path]
    assert {(c.ours.requests, c.theirs.requests) for c in alone} == {(1, 1)}


@pytest.mark.usefixtures("rclone_engine")  # where it cannot start, that is said
async def test_every_row_of_contents_is_measured(console: Console) -> None:
    found, engines = await run(console, ONCE, TINY, words=["blobs"])

    assert len(found) == sum(len(row.against) for row in BlobsStage.rows)
    assert engines["blobs"].startswith("rclone serve s3")
    assert all(c.ours.calls > 0 and c.theirs.calls > 0 for c in found)


async def test_rows_of_moves_are_measured(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dal.move.cutover.GATE_MAX_AGE_S", "dal.move.cutover.GATE_IDLE_AGE_S", "tests.bench.moves.PAUSE_S"):
        monkeypatch.setattr(name, 0.05)

    found, _ = await run(console, ONCE, TINY_MOVES, words=["moves", *_WITHOUT_POSTGRESQL])

    assert len(found) == 2 + 1 + 2 + 2
    assert all(c.ours.calls > 0 and c.theirs.calls > 0 for c in found)
    assert MovesStage.backend in console.export_text()


_WITHOUT_POSTGRESQL = ("a sqlite source", "to sqlite", "sqlite and sqlite", "files and sqlite")


async def test_a_call_can_tell_what_counts() -> None:
    async def call(_number: int) -> float:
        return 7.0

    (stats,) = await compare([Side("a", call, tells=True)], Pace(1, 0.0, 0.0), same_calls=False)

    assert stats.median_us == 7_000_000


async def test_words_choose_backends_and_paths(console: Console) -> None:
    found, _ = await run(console, ONCE, TINY, words=["nothing", "memory"])

    assert {c.path for c in found} == {"own cost: memory.set", "own cost: memory.get"}


async def test_both_sides_of_sqlite_give_the_same_answers(tmp_path: Path) -> None:
    data = Data(TINY)
    data.write_bulk_files(tmp_path, 1)
    async with SqliteStage(tmp_path, data) as stage:
        answers = {name: await _answers(await stage.subject(name), data) for name in ("dal", "raw", "one hop")}
        usual = await _answers(await stage.subject("aiosqlite"), data, bulk=False)
        found = {name: await (await stage.subject(name)).search("differential") for name in _SEARCHERS}

    assert answers["dal"] == answers["raw"] == answers["one hop"]
    assert answers["dal"][:-1] == usual
    assert found["dal with search"] == found["raw with search"] > 0


@pytest.mark.usefixtures("d1_engine")
async def test_both_sides_of_d1_give_the_same_answers(tmp_path: Path) -> None:
    data = Data(TINY_D1)
    data.write_bulk_files(tmp_path, 1)
    async with D1Stage(tmp_path, data) as stage:
        answers = [await _answers(await stage.subject(name), data) for name in ("dal", "dal, no coalescing", "httpx")]
        found = {name: await (await stage.subject(name)).search("differential") for name in _D1_SEARCHERS}

    assert answers[0] == answers[1] == answers[2]
    assert found["dal with search"] == found["httpx with search"] > 0


_D1_SEARCHERS = ("dal with search", "httpx with search")
_SEARCHERS = ("dal with search", "raw with search")


async def _answers(subject: Subject, data: Data, *, bulk: bool = True) -> list[object]:
    """How many messages histories have, the numbers that appends get, a value, and what an import brought."""
    chat, user, key = data.chats[0], data.users[0], data.keys[0]
    await subject.get_chat(chat)
    await subject.get_message(data.message_ids[0])
    await subject.memory_set(user, key, {"n": 7})
    answers: list[object] = [
        *[len(await subject.history(c, 20)) for c in data.chat_of_length.values()],
        *[await subject.append(chat, "user", "text") for _ in range(2)],
        await subject.memory_get(user, key),
    ]
    return [*answers, await subject.bulk(data.bulk_files[0])] if bulk else answers


async def test_sides_take_turns_and_never_repeat_a_call_number() -> None:
    seen: list[tuple[str, int]] = []

    def side(name: str, tasks: int) -> Side:
        async def call(number: int) -> None:
            seen.append((name, number))

        return Side(name, call, tasks)

    stats = await compare([side("a", 1), side("b", 3)], Pace(rounds=2, round_s=0.0, warm_up_s=0.0), same_calls=True)

    turns = [name for name, _ in groupby(name for name, _ in seen)]
    assert turns == ["a", "b", "a", "b", "a"]  # warm-up of both, then a round a-b, then one b-a
    assert len(set(seen)) == len(seen)
    assert [s.calls for s in stats] == [6, 6]


def _stats(median_us: float, per_second: float, p99_us: float = 0.0) -> Stats:
    return Stats(
        name="x", calls=1, median_us=median_us, p95_us=0, p99_us=p99_us, per_second=per_second, cpu_us=0, peak_bytes=1
    )


@pytest.mark.parametrize(
    ("target", "reached", "met"),
    [
        (Target(Measure.SLOWDOWN, 1.15), "2.00 ×", False),
        (Target(Measure.SLOWDOWN, 2), "2.00 ×", True),
        (Target(Measure.SPEEDUP, 0.5), "0.50 ×", True),
        (Target(Measure.SPEEDUP, 0.6), "0.50 ×", False),
        (Target(Measure.THROUGHPUT, 3), "4.00 ×", True),
        (Target(Measure.THROUGHPUT, 5), "4.00 ×", False),
        (Target(Measure.RATE, 400), "400/s", True),
        (Target(Measure.RATE, 401), "400/s", False),
        (Target(Measure.EXTRA_US, 10), "+10.0 µs", True),
        (Target(Measure.EXTRA_US, 9), "+10.0 µs", False),
        (Target(Measure.P99_MS, 5), "5.0 ms", True),
        (Target(Measure.P99_MS, 4), "5.0 ms", False),
        (Target(Measure.SLOWDOWN), "2.00 ×", None),
    ],
)
def test_a_target_is_judged_by_its_measure(target: Target, reached: str, met: bool | None) -> None:
    ours, theirs = _stats(20, 400, 5_000), _stats(10, 100)
    value = target.measure.of(ours, theirs)

    assert target.measure.text(value) == reached
    assert target.met(value) is met


@pytest.mark.parametrize(
    ("rounds", "verdict"),
    [
        ((10, 10, 10, 10, 10), "met"),
        ((10, 10, 10, 10, 90), "met"),
        ((10, 10, 10, 90, 90), "unclear"),
        ((90, 90, 90, 90, 90), "MISSED"),
        ((90, 90, 90, 10, 10), "unclear"),
    ],
)
def test_a_verdict_needs_rounds_that_agree(rounds: tuple[int, ...], verdict: str) -> None:
    ours = replace(_stats(sorted(rounds)[2], 1), rounds=tuple(_stats(r, 1) for r in rounds))
    theirs = replace(_stats(10, 1), rounds=tuple(_stats(10, 1) for _ in rounds))

    assert Target(Measure.SLOWDOWN, 2).verdict(ours, theirs) == verdict


async def test_the_page_and_the_json_hold_every_comparison(console: Console, tmp_path: Path) -> None:
    found, _ = await run(console, ONCE, TINY, words=["nothing"])

    report.write_page(tmp_path / "benchmarks.md", {"disk": "fast | slow"}, {"nothing": "none"}, found)
    page = (tmp_path / "benchmarks.md").read_text()
    parsed = json.loads(report.as_json({"disk": "fast"}, found))

    assert all(f"| {c.path} | {c.theirs.name} |" in page for c in found)
    assert "- disk: fast | slow\n- engine: none\n" in page
    assert [c["path"] for c in parsed["comparisons"]] == [c.path for c in found]
    assert parsed["machine"] == {"disk": "fast"}


def _comparison(backend: str, path: str) -> report.Comparison:
    return report.Comparison(backend, path, _stats(10, 100), _stats(10, 100), ())


def test_the_page_keeps_the_sections_of_backends_that_were_not_measured(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    report.write_page(page, {"disk": "old"}, {}, [_comparison("file", "f"), _comparison("sqlite", "s")])
    before = page.read_text()

    report.write_page(page, {"disk": "new"}, {"d1": "workerd"}, [_comparison("d1", "d"), _comparison("sqlite", "s2")])
    after = page.read_text()

    assert [line for line in after.splitlines() if line.startswith("## ")] == ["## SQLite", "## D1", "## Files"]
    assert after.endswith(before[before.index("## Files") :])
    assert "| s2 |" in after
    assert "| s |" not in after
    assert after.count("- disk: new") == 2


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    report.write_page(page, {"disk": "old"}, {}, [_comparison("d1", "f")])
    before = page.read_text()

    report.write_page(page, {"disk": "old"}, {}, [])

    assert page.read_text() == before


@pytest.mark.parametrize("words", ["append", "d1,append", "nosuch"])
def test_a_part_of_a_section_is_not_written(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", words, "--write-docs"])

    assert "whole sections" in capsys.readouterr().err


def test_requests_a_call_are_shown_where_they_were_counted(console: Console) -> None:
    counted = _comparison("d1", "d")._replace(ours=replace(_stats(10, 100), requests=1.0))

    report.show(console, "d1", [counted])
    report.show(console, "file", [_comparison("file", "f")])

    assert console.export_text().count("requests") == 1
