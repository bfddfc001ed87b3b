"""Runs the chosen rows of the chosen backends, one backend after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console

from tests.bench import report
from tests.bench.data import Data, Scale
from tests.bench.measure import Pace, compare
from tests.bench.on_blobs import BlobsStage
from tests.bench.on_d1 import D1Stage
from tests.bench.on_file import FileStage
from tests.bench.on_files import FilesStage
from tests.bench.on_moves import BACKFILL_FILES, MovesStage
from tests.bench.on_nothing import NothingStage
from tests.bench.on_postgresql import PostgresqlStage
from tests.bench.on_sqlite import SqliteStage
from tests.bench.paths import Row
from tests.bench.report import Comparison
from tests.bench.stage import Stage
from tests.engines.postgres import EngineMissingError

_STAGES: Final[tuple[type[Stage], ...]] = (
    NothingStage,
    SqliteStage,
    PostgresqlStage,
    D1Stage,
    FileStage,
    MovesStage,
    BlobsStage,
    FilesStage,
)
BACKENDS: Final = tuple(stage.backend for stage in _STAGES)


class Results(NamedTuple):
    """What was measured, and on which engines."""

    comparisons: list[Comparison]
    engines: dict[str, str]


async def run(
    console: Console, pace: Pace, scale: Scale, *, words: Sequence[str] = (), corpus: Path | None = None
) -> Results:
    """Every comparison that was made; each backend's table is printed when it is done.

    words  names of backends, and words of which a path must contain one; none of a kind means all.
    """
    results = Results([], {})
    for stage_type in _STAGES:
        rows = _chosen(stage_type, scale, words)
        if not rows:
            continue
        try:
            measured = await _run_stage(console, stage_type, rows, pace, Data(scale, corpus=corpus), results.engines)
        except EngineMissingError as error:
            console.print(f"NOT MEASURED: {stage_type.backend} ({error})", style="yellow", highlight=False)
            continue
        report.show(console, stage_type.backend, measured)
        results.comparisons.extend(measured)
    return results


def _chosen(stage_type: type[Stage], scale: Scale, words: Sequence[str]) -> list[tuple[str, Row]]:
    """The rows of this backend that the words choose, with their titles."""
    backends = [word for word in words if word in BACKENDS]
    parts = [word for word in words if word not in BACKENDS]
    if backends and stage_type.backend not in backends:
        return []
    titled = [(row.title.format(**scale._asdict()), row) for row in stage_type.rows]
    return [(title, row) for title, row in titled if not parts or any(part in title.lower() for part in parts)]


async def _run_stage(
    console: Console,
    stage_type: type[Stage],
    rows: Sequence[tuple[str, Row]],
    pace: Pace,
    data: Data,
    engines: dict[str, str],
) -> list[Comparison]:
    found = []
    with tempfile.TemporaryDirectory(prefix="dal-bench-") as directory:
        if any(row.bulk for _, row in rows):
            data.write_bulk_files(Path(directory), max(pace.rounds + 1, BACKFILL_FILES))
        async with stage_type(Path(directory), data) as stage:
            for place, (title, row) in enumerate(rows, 1):
                with console.status(f"{stage_type.backend}: {title}"):
                    sides = await stage.sides(row)
                    rounds = min(pace.rounds, row.rounds or pace.rounds)
                    ours, *theirs = await compare(sides, pace._replace(rounds=rounds), same_calls=row.writes)
                for stats, against in zip(theirs, row.against, strict=True):
                    found.append(Comparison(stage_type.backend, title, ours, stats, against.targets))
                await stage.leave([row for _, row in rows[place:]])
            if stage.engine:
                engines[stage.backend] = stage.engine
    return found
