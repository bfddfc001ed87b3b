"""The results as a table for people, JSON for programs, and the page docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from tests.bench.measure import Stats
from tests.bench.targets import Target, Verdict


class Comparison(NamedTuple):
    """One path of the library beside one baseline."""

    backend: str
    path: str
    ours: Stats
    theirs: Stats
    targets: tuple[Target, ...]

    def verdicts(self) -> list[tuple[str, str, Verdict]]:
        """What was reached (with the lowest and highest round), what was wanted, and the verdict, for each target."""
        found = []
        for target in self.targets:
            reached = target.measure.text(target.measure.of(self.ours, self.theirs))
            rounds = target.of_rounds(self.ours, self.theirs)
            if rounds:
                low, high = target.measure.text(min(rounds)), target.measure.text(max(rounds))
                reached += f" ({low.split()[0]}…{high.split()[0]})"
            found.append((reached, target.wanted, target.verdict(self.ours, self.theirs)))
        return found


_HEADINGS: Final = (
    "path",
    "beside",
    "median µs",
    "p95 µs",
    "per second",
    "CPU µs a call",
    "peak MB",
    "reached",
    "target",
    "verdict",
)
_PAIRS: Final = {"median µs", "p95 µs", "per second", "CPU µs a call", "peak MB"}


def show(console: Console, backend: str, found: Sequence[Comparison]) -> None:
    """Prints the table of one backend."""
    table = Table(title=f"{backend}: dal / beside", title_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading in _PAIRS else "left")
    for comparison in found:
        cells = _cells(comparison)
        missed = "MISSED" in cells[_HEADINGS.index("verdict")]
        table.add_row(*(cell.replace("<br>", "\n") for cell in cells), style="red" if missed else None)
    console.print(table)


def as_json(machine: Mapping[str, str], found: Sequence[Comparison]) -> str:
    """Everything that was measured, as JSON."""
    comparisons = [
        {
            "backend": c.backend,
            "path": c.path,
            "ours": asdict(c.ours),
            "baseline": asdict(c.theirs),
            "targets": [
                {"reached": reached, "wanted": wanted, "verdict": verdict} for reached, wanted, verdict in c.verdicts()
            ],
        }
        for c in found
    ]
    return json.dumps({"machine": machine, "comparisons": comparisons}, indent=2, ensure_ascii=False) + "\n"


def write_page(path: Path, machine: Mapping[str, str], found: Sequence[Comparison]) -> None:
    """Writes the documentation page; the text around the tables is `_PAGE`."""
    tables = []
    for backend in dict.fromkeys(c.backend for c in found):
        rows = [_cells(c) for c in found if c.backend == backend]
        lines = [" | ".join(_HEADINGS), " | ".join("---" for _ in _HEADINGS), *(" | ".join(row) for row in rows)]
        tables.append(f"## {_TITLES.get(backend, backend)}\n\n" + "\n".join(f"| {line} |" for line in lines))
    described = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PAGE.format(machine=described, tables="\n\n".join(tables)), encoding="utf-8")


_TITLES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "file": "Files", "nothing": "The library's own cost"}

_PAGE: Final = """# Benchmarks

Each path is measured beside the same work written by hand on the same driver, in turns within one run, with durable
settings on both sides.

<!-- not run: takes minutes -->
```bash
make bench
```

`python -m tests.bench --write-docs` writes the results of the machine it runs on to this page.

Both sides have the same tables, indexes and rows. PostgreSQL runs with its own defaults of durability, SQLite in WAL
mode with `synchronous=FULL`, files with fsync. Numbers are `dal / the other`; medians are medians of rounds,
percentiles are over all calls. The library gives typed records and has checked its input; psycopg and sqlite3 give the
driver's tuples, aiosqlite as usually written a dictionary a row. The CPU is that of the client process, all threads;
memory is what a round needed above what was in use before it.

The search index is left out on both sides, except where a row speaks of search. `history(10)` compares a long chat with
one that has just as many messages as are read. A row without a target promises nothing: it is there to be known.

In parentheses stand the lowest and the highest round. A verdict is given only where four rounds of five agree with it,
else it is `unclear`: the machine was too noisy to say. The row `control` measures one piece of code beside itself; how
far it is from 1 is the error of the rows like it. A busy machine flatters whatever commits in groups, because each
single commit beside it waits longer: read the load average first.

{machine}

{tables}
"""


def _cells(comparison: Comparison) -> list[str]:
    ours, theirs, verdicts = comparison.ours, comparison.theirs, comparison.verdicts()
    return [
        comparison.path,
        theirs.name,
        f"{_us(ours.median_us)} / {_us(theirs.median_us)}",
        f"{_us(ours.p95_us)} / {_us(theirs.p95_us)}",
        f"{ours.per_second:,.0f} / {theirs.per_second:,.0f}",
        f"{_us(ours.cpu_us)} / {_us(theirs.cpu_us)}",
        f"{_megabytes(ours.peak_bytes)} / {_megabytes(theirs.peak_bytes)}",
        *("<br>".join(verdict[place] for verdict in verdicts) for place in range(3)),
    ]


def _us(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _megabytes(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else f"{size_bytes / 1e6:.1f}"
