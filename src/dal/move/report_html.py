"""A check as one page to read and to hand on: counts, charts, and a few of the rows that differ.

It shows which fields differ and how large their values are; the values themselves only where that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from typing import Final

from dal.move.canonical import canonical_document
from dal.move.check_report import CheckReport, TableResult
from dal.move.differences import KINDS, Difference
from dal.move.page import bar_of, fact_table, head, part
from dal.ops import Value
from dal.replica import Entry
from dal.tables import TABLES

_NAMES: Final = {
    "equal": "equal",
    "missing": "missing",
    "extra": "extra",
    "stale": "stale",
    "content_differs": "content differs",
    "orphan": "orphan",
    "pending": "pending",
}
_SHOWN_CHARS: Final = 400


def html_page(report: CheckReport, *, source: str, target: str, show_content: bool = False) -> str:
    """The report as a page. `source` and `target` are the stores' names, without a password."""
    return "".join(_page(report, source, target, show_content=show_content))


def _page(report: CheckReport, source: str, target: str, *, show_content: bool) -> Iterator[str]:
    yield head("dal check", verdict(report), _NAMES)
    yield from _facts(report, source, target)
    yield "<h2>By table</h2>"
    yield from _tables(report)
    yield "<h2>Parts of each table</h2><p>"
    yield "".join(f'<span class="key {name}"></span>{shown}' for name, shown in _NAMES.items())
    yield "</p><table>"
    for name, result in report.tables.items():
        yield f"<tr><th>{escape(name)}</th><td>{_bar(result)}</td></tr>"
    yield "</table>"
    if report.differences or report.pending:
        yield "<h2>By kind</h2><table>"
        yield from _kinds(report)
        yield "</table>"
    if any(report.damage.values()):
        yield "<h2>What the stores cannot read</h2><ul>"
        for side, sentences in report.damage.items():
            yield from (f"<li>{side}: {escape(sentence)}</li>" for sentence in sentences)
        yield "</ul>"
    samples = [sample for result in report.tables.values() for sample in result.samples]
    if samples:
        yield "<h2>Some of the rows that differ</h2>"
        if not show_content:
            yield '<p class="faint">Content is left out; only its kind and size are shown.</p>'
        yield from _samples(samples, show_content=show_content)
    yield "</body></html>\n"


def verdict(report: CheckReport) -> str:
    """The result in one sentence."""
    if report.differences:
        return f"{report.differences:,} {'row differs' if report.differences == 1 else 'rows differ'}"
    if report.pending:
        return f"no difference, but {report.pending:,} {'row is' if report.pending == 1 else 'rows are'} still changing"
    if any(report.damage.values()):
        return "no difference, but a store has data that it cannot read"
    if report.unseen:
        return "no difference in what the registries know; the backfill has not come to its end"
    if report.stopped is not None and report.total is not None:
        return f"equal, as far as it was compared: {how_far(report)}"
    return "equal" if report.is_whole else "equal, as far as it was compared"


def how_far(report: CheckReport) -> str:
    """How much a check that ran out of time has seen."""
    total = max(report.total or 0, report.rows)
    share = 100 * report.rows / total if total else 100.0
    return f"{report.rows:,} of {total:,} rows of both sides, {share:.0f} %"


def _facts(report: CheckReport, source: str, target: str) -> Iterator[str]:
    rate = report.rows / report.seconds if report.seconds else 0.0
    facts = [
        ("source", source),
        ("target", target),
        ("mode", report.mode if report.sampled is None else f"{report.mode}, {report.sampled:,} rows of each table"),
        ("begun", report.began.strftime("%Y-%m-%d %H:%M:%S UTC")),
        ("compared", f"{report.rows:,} rows of both sides in {report.seconds:,.1f} s ({rate:,.0f} rows/s)"),
        ("in a move", ", ".join(report.in_move) or "no"),
    ]
    if report.stopped is not None:
        stopped = f"in {report.stopped.table}, behind {report.stopped.after}: time was up after {how_far(report)}"
        facts.append(("stopped", stopped))
    yield from fact_table(facts)


def _tables(report: CheckReport) -> Iterator[str]:
    names = ("source", "target", "equal", *KINDS, "pending")
    heads = "".join(f'<th class="n">{_NAMES.get(name, name)}</th>' for name in names)
    yield f"<table><tr><th>table</th>{heads}</tr>"
    for table, result in report.tables.items():
        counts = (result.source, result.target, *(count for _, count in _counts(result)))
        cells = "".join(f'<td class="n">{count:,}</td>' for count in counts)
        yield f"<tr><td>{escape(table)}</td>{cells}</tr>"
    yield "</table>"


def _kinds(report: CheckReport) -> Iterator[str]:
    """A bar for each kind of row that is not equal, the longest one whole."""
    totals = dict.fromkeys((*KINDS, "pending"), 0)
    for result in report.tables.values():
        totals |= {name: totals[name] + count for name, count in _counts(result) if name != "equal"}
    longest = max(totals.values())
    for name, count in totals.items():
        width = count / longest * 1000
        bar = bar_of([part(name, 0, width)])
        yield f'<tr><th>{_NAMES[name]}</th><td class="n">{count:,}</td><td class="wide">{bar}</td></tr>'


def _counts(result: TableResult) -> list[tuple[str, int]]:
    return [
        ("equal", result.equal),
        *((kind, result.counts.get(kind, 0)) for kind in KINDS),
        ("pending", result.pending),
    ]


def _bar(result: TableResult) -> str:
    """The parts of a table as one bar; a part that is there is never too thin to be seen."""
    counts = [(name, count) for name, count in _counts(result) if count]
    total = sum(count for _, count in counts)
    if not total:
        return '<span class="faint">empty</span>'
    widths = [max(count / total * 1000, 6) for _, count in counts]
    scale, left, parts = 1000 / sum(widths), 0.0, []
    for (name, count), width in zip(counts, widths, strict=True):
        parts.append(part(name, left, width * scale, f"{_NAMES[name]}: {count:,}"))
        left += width * scale
    return bar_of(parts)


def _samples(samples: Sequence[Difference], *, show_content: bool) -> Iterator[str]:
    yield "<table><tr><th>table</th><th>id</th><th></th><th>field</th><th>source</th><th>target</th></tr>"
    for difference in samples:
        head = (
            f"<td>{escape(difference.table)}</td><td><code>{escape(difference.id)}</code></td>"
            f"<td>{_NAMES[difference.kind]} in the {difference.side}{_altered(difference)}</td>"
        )
        for name in difference.fields or ("",):
            cells = "".join(
                f"<td>{_value(difference.table, entry, name, show_content=show_content)}</td>"
                for entry in (difference.source, difference.target)
            )
            yield f"<tr>{head}<td>{escape(name)}</td>{cells}</tr>"
    yield "</table>"


def _altered(difference: Difference) -> str:
    return "".join(f"; the {side} changed behind its registry" for side in difference.altered)


def _value(table: str, entry: Entry | None, field: str, *, show_content: bool) -> str:
    if entry is None or entry.row is None:
        return '<span class="faint">no row</span>' if entry is not None else ""
    version = f' <span class="faint">version {entry.version:,}</span>' if entry.version else ""
    if not field:
        return f"a row{version}"
    value = entry.row[TABLES[table].names.index(field)]
    return (f"<code>{escape(_shown(value))}</code>" if show_content else _size(value)) + version


def _shown(value: Value) -> str:
    text = (
        value
        if isinstance(value, str)
        else str(value)
        if isinstance(value, datetime)
        else canonical_document(value).decode()
    )
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _size(value: Value) -> str:
    """What a value is, without saying what it says."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return f"text, {len(value):,} characters"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, datetime):
        return "a time"
    return f"a document, {len(canonical_document(value)):,} bytes"
