"""The results as a table for people, JSON for programs, and the page docs/benchmarks.md.

The page has a section for each backend, with the machine it was measured on; sections of backends that were not
measured this time stay as they are.
"""

from __future__ import annotations

import json
import re
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
_REQUESTS: Final = "requests a call"
_PAIRS: Final = {"median µs", "p95 µs", "per second", "CPU µs a call", "peak MB", _REQUESTS}


def show(console: Console, backend: str, found: Sequence[Comparison]) -> None:
    """Prints the table of one backend."""
    table = Table(title=f"{backend}: dal / beside", title_justify="left")
    headings, rows = _table(found)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in _PAIRS else "left")
    for cells in rows:
        missed = "MISSED" in cells[headings.index("verdict")]
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


def write_page(path: Path, machine: Mapping[str, str], engines: Mapping[str, str], found: Sequence[Comparison]) -> None:
    """Writes the documentation page; the text around the sections is `_PAGE`.

    engines  by backend, what its numbers were measured on beside the machine.
    """
    sections = _sections(path)
    for backend in dict.fromkeys(c.backend for c in found):
        described = {**machine, **({"engine": engines[backend]} if backend in engines else {})}
        sections[_TITLES.get(backend, backend)] = _section(
            backend, described, [c for c in found if c.backend == backend]
        )
    known = list(_TITLES.values())
    titles = sorted(sections, key=lambda title: known.index(title) if title in known else len(known))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PAGE + "".join(f"\n## {title}\n\n{sections[title]}\n" for title in titles), encoding="utf-8")


def _sections(path: Path) -> dict[str, str]:
    """The sections that the page has already, by title."""
    if not path.exists():
        return {}
    _, *parts = re.split(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {title: text.strip() for title, text in zip(parts[::2], parts[1::2], strict=True)}


def _section(backend: str, described: Mapping[str, str], found: Sequence[Comparison]) -> str:
    headings, rows = _table(found)
    lines = [" | ".join(headings), " | ".join("---" for _ in headings), *(" | ".join(row) for row in rows)]
    measured = "\n".join(f"- {name}: {value}" for name, value in described.items())
    note = _NOTES.get(backend, "")
    return "\n\n".join(part for part in (note, measured, "\n".join(f"| {line} |" for line in lines)) if part)


def _table(found: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows; how many requests a call took is said where somebody counted them."""
    headings, rows = list(_HEADINGS), [_cells(c) for c in found]
    if any(c.ours.requests is not None for c in found):
        place = headings.index("reached")
        headings.insert(place, _REQUESTS)
        for comparison, row in zip(found, rows, strict=True):
            row.insert(place, f"{_requests(comparison.ours)} / {_requests(comparison.theirs)}")
    return headings, rows


#: In the order of the page.
_TITLES: Final = {
    "nothing": "The library's own cost",
    "sqlite": "SQLite",
    "postgresql": "PostgreSQL",
    "d1": "D1",
    "file": "Files",
    "moves": "Live moves",
    "blobs": "Contents of files",
    "files": "The service for files",
}

_NOTES: Final = {
    "blobs": """Both sides store the same bytes, durable when the call returns; the library also computes their SHA-256
and keeps it. Plain files are written, synced and renamed, their directory is synced, and all that blocks the event
loop, as the library does not. `cp` syncs nothing. The bucket is served by the machine that measures, so that both sides
wait for the same processors; obstore and boto3 compute no SHA-256 of what they send. 10,000 small contents, 5 large
ones.""",
    "files": """Rows in SQLite, bytes in a directory, both on the disk. Beside an upload stand the bare blob store and
one insert, beside a download one read of a row and the blob store; the service also knows types, quotas, rights and an
access log. A hundred tasks that upload for one user contend for one quota, beside a hundred users' quotas.""",
    "moves": """What a live move costs a writer: the same append in a store without a move, with a move installed (every
row is registered by a trigger), and by an instance that also pushes what it wrote to a target of the same kind, in the
same process. The two sides of a backfill copy the same rows from the same SQLite file; the library also registers,
reads back and compares every row. `per second` counts messages there, and rows in a check. Ids and texts of messages,
read in order from both sides and compared, stand beside the checks. The longest append is that of eight writers in one
process, each 5 ms after its last one, while the unit they write changes sides, forth and back in turns; beside it the
same for as long with nothing switched: what the machine alone makes of it.""",
    "d1": """The engine that hosted D1 runs on, on this machine: what is seen is the cost of the client and of the
engine, without a network. The hand-written client (httpx, orjson) sends one request a call with the best SQL, atomic
like the library's; it checks nothing, tries nothing again, and a write sent again after a lost answer may be stored
twice. The library's writes carry an id that is stored with them, one row more, which makes the repeat harmless.

Hosted D1 turns these numbers into others. A request takes 30 to 100 ms there, so that the client's own half millisecond
no longer counts and the number of requests is everything: it is one for each of these calls. The public API takes 1,200
requests in five minutes; the library keeps below that, 250 at once and then 3 a second, and waits. One database carries
out one request after another. All three favour large batches. Commits that wait at the same moment become one request
by themselves: sixteen tasks whose requests are all let through gain nothing by it at 50 ms (a row below), but on the
public API they write 48 messages a second in the long run instead of 3. `add_many`, `set_many` and `dal import` send
thousands of rows at once: an import of 442,634 messages, made searchable, took 760 requests, which the public API lets
through in three minutes. What needs more requests takes the companion Worker: [use D1](how-to/use-d1.md).""",
}

_PAGE: Final = """# Benchmarks

Each path is measured beside the same work written by hand on the same driver, in turns within one run, with durable
settings on both sides.

<!-- not run: takes minutes -->
```bash
make bench
```

`python -m tests.bench --write-docs` writes the results of the machine it runs on to this page; `--only` with names of
backends writes their sections alone.

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


def _requests(stats: Stats) -> str:
    return "?" if stats.requests is None else f"{stats.requests:.2f}".rstrip("0").rstrip(".")


def _us(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _megabytes(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else f"{size_bytes / 1e6:.1f}"
