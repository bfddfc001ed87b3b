"""An assessment, a move or a check of contents as one page to read and to hand on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from dal.files_move.assessing import Assessment
from dal.files_move.report import ContentsReport, Problems, verdict
from dal.files_move.tally import Amount, size_name
from dal.move.page import bar_of, fact_table, head, part

_KINDS = ("equal", "missing", "pending")


def report_page(report: ContentsReport, *, source: str, target: str) -> str:
    """A move, a way back or a check. `source` and `target` are the stores' names, without a password."""
    return "".join(_report(report, source, target))


def assessment_page(made: Assessment, *, source: str, target: str | None, facts: Iterable[tuple[str, str]] = ()) -> str:
    """An assessment; `facts` are what else is to be told of it, as its cost."""
    return "".join(_assessment(made, source, target, facts))


def _report(report: ContentsReport, source: str, target: str) -> Iterator[str]:
    yield head(f"dal files {report.action}", verdict(report), _KINDS)
    rate = report.copied_bytes / report.seconds if report.seconds else 0.0
    yield from fact_table(
        [
            ("source", source),
            ("target", target),
            ("begun", report.began.strftime("%Y-%m-%d %H:%M:%S UTC")),
            ("took", f"{report.seconds:,.1f} s"),
            ("in the source", f"{report.files:,} files, {size_name(report.bytes)}"),
            ("copied and verified", f"{report.copied:,} files, {size_name(report.copied_bytes)}, {size_name(rate)}/s"),
            ("there already", f"{report.there:,}"),
            ("left as they are", f"{report.kept:,}"),
            ("taken out again", f"{report.removed:,}"),
            ("in the target only", f"{report.extra:,}"),
            ("read byte by byte", f"{report.read:,}"),
        ]
    )
    rest = max(0, report.files - report.there - report.copied)
    yield "<h2>Of the files in the source</h2>"
    yield _bar([("equal", "copied or there", report.there + report.copied), ("missing", "not", rest)])
    yield from _problems(report.problems)
    yield "</body></html>\n"


def _assessment(made: Assessment, source: str, target: str | None, more: Iterable[tuple[str, str]]) -> Iterator[str]:
    total = made.tally.total
    wrong = f"{made.problems.total:,} problems" if made.problems.total else "no problem"
    yield head("dal files assess", f"{total.files:,} files, {size_name(total.bytes)}; {wrong}", _KINDS)
    known = [
        ("source", source),
        ("target", target or "none named"),
        ("begun", made.began.strftime("%Y-%m-%d %H:%M:%S UTC")),
        ("a move copies", f"{made.moving.files:,} files, {size_name(made.moving.bytes)}"),
        ("there twice", f"{made.tally.duplicates.files:,} files, {size_name(made.tally.duplicates.bytes)}"),
        ("bytes were read", "all" if made.is_read else "no"),
    ]
    yield from fact_table([*known, *more])
    yield "<h2>By size</h2>"
    yield from _amounts(made.tally.histogram())
    yield "<h2>By type</h2>"
    yield from _amounts(made.tally.commonest())
    yield from _problems(made.problems)
    yield "</body></html>\n"


def _amounts(amounts: Iterable[tuple[str, Amount]]) -> Iterator[str]:
    """A row for each, its bar as long as its files."""
    shown = [(name, amount) for name, amount in amounts if amount.files]
    longest = max((amount.files for _, amount in shown), default=1)
    yield "<table>"
    for name, amount in shown:
        bar = bar_of([part("pending", 0, amount.files / longest * 1000)])
        numbers = "".join(f'<td class="n">{text}</td>' for text in (f"{amount.files:,}", size_name(amount.bytes)))
        yield f'<tr><th>{escape(name)}</th>{numbers}<td class="wide">{bar}</td></tr>'
    yield "</table>"


def _bar(counts: Iterable[tuple[str, str, int]]) -> str:
    shown = [(kind, name, count) for kind, name, count in counts if count]
    total = sum(count for *_, count in shown)
    left, parts = 0.0, []
    for kind, name, count in shown:
        parts.append(part(kind, left, count / total * 1000, f"{name}: {count:,}"))
        left += count / total * 1000
    return bar_of(parts)


def _problems(problems: Problems) -> Iterator[str]:
    if not problems.counts:
        return
    yield "<h2>Problems</h2><table>"
    yield from (f'<tr><th>{kind}</th><td class="n">{count:,}</td></tr>' for kind, count in problems.counts.items())
    yield "</table><h2>Some of them</h2><table>"
    for kind, key, text in problems.samples:
        yield f"<tr><td>{kind}</td><td><code>{escape(key)}</code></td><td>{escape(text)}</td></tr>"
    yield "</table>"
