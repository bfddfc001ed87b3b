"""`dal files assess`, `move`, `verify` and `rollback`: contents from one place to another, while they are in use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dal.cli.files.options import (
    From,
    FromDir,
    Jobs,
    Map,
    Owner,
    Rate,
    ReportFile,
    To,
    limit_of,
)
from dal.cli.files.places import Ends, Places, check_ends, opened_ends
from dal.cli.options import AsJson, Url
from dal.cli.output import console, one_line, print_json, table
from dal.cli.running import FAILED, WRONG_USAGE, complain, run
from dal.limits import CONTENTS_TRANSFERS

if TYPE_CHECKING:
    from dal.files_move.assessing import Assessment
    from dal.files_move.cost_estimate import Expense
    from dal.files_move.options import MoveOptions
    from dal.files_move.report import ContentsReport

JsonLines = Annotated[
    bool, typer.Option("--json", help="JSON lines on standard output: progress, problems, and the report at the end.")
]


def assess(
    url: Url = None,
    source: From = None,
    directory: FromDir = None,
    target: To = None,
    user: Owner = None,
    paths: Map = None,
    read: Annotated[
        bool, typer.Option("--read", help="Read all bytes: find corrupt ones, and duplicates by content.")
    ] = False,
    no_trial: Annotated[
        bool, typer.Option("--no-trial", help="Copy nothing, not even for a trial; then no time is told.")
    ] = False,
    jobs: Jobs = CONTENTS_TRANSFERS,
    report: ReportFile = None,
    json: AsJson = False,
) -> None:
    """Say what a move would do: how much, of what, what is wrong with it, how long it takes and what it costs.

    With --to a few blobs are copied under names of their own and removed again, to tell the time. Exits with 1 when
    something is wrong; bytes that no row names are told, and are in nobody's way.
    """
    places = Places(url, source, directory, target, user, paths)
    check_ends(places, needs_target=False)

    async def work() -> int:
        from dal.files_move.assessing import assess as assess_contents
        from dal.files_move.cost_estimate import expenses
        from dal.files_move.directory_checks import assess_directory
        from dal.files_move.options import MoveOptions

        options, try_out = MoveOptions(jobs=jobs), not no_trial
        async with opened_ends(places) as ends:
            rows, into = ends.data.store, ends.target
            if ends.source is not None:
                made = await assess_contents(ends.source, into, rows, read=read, try_out=try_out, options=options)
            else:
                root, owners = ends.tree
                made = await assess_directory(root, into, rows, owners, read=read, try_out=try_out, options=options)
            own = []
            for provider in {ends.source_provider, ends.target_provider} - {None}:
                own += await ends.data.files.monitoring.prices.list(str(provider))
            spent = expenses(made, ends.source_provider, ends.target_provider, own)
        _write_assessment(report, made, spent, ends)
        if json:
            print_json({"source": ends.source_name, "target": ends.target_name, **_assessed(made, spent)})
        else:
            _show_assessment(made, spent, ends)
        return FAILED if made.problems.total else 0

    run(work())


def move(
    url: Url = None,
    source: From = None,
    directory: FromDir = None,
    target: To = None,
    user: Owner = None,
    paths: Map = None,
    jobs: Jobs = CONTENTS_TRANSFERS,
    limit: Rate = None,
    report: ReportFile = None,
    json: JsonLines = False,
) -> None:
    """Copy all contents that the target does not hold, each verified; a directory's files become files.

    Run the application with BLOB_URL naming the target and BLOB_FALLBACK_URL the source meanwhile: what has not moved
    is read from there. Killed at any moment, the same command goes on where it was; run again, it takes along what is
    new. Nothing is taken out of the source. Exits with 1 when something could not be copied.
    """
    places = Places(url, source, directory, target, user, paths)

    async def work(ends: Ends, options: MoveOptions) -> ContentsReport:
        from dal.files_move.directory import move_directory
        from dal.files_move.moving import move as move_contents

        rows, into = ends.data.store, ends.filled
        if ends.source is not None:
            return await move_contents(ends.source, into, rows, options=options)
        root, owners = ends.tree
        return await move_directory(root, ends.data.files, into, rows, owners, options=options)

    _carry_out(places, work, jobs, limit, report, json, lambda _: f"Next: dal files verify {_ends_again(places)}")


def verify(
    url: Url = None,
    source: From = None,
    directory: FromDir = None,
    target: To = None,
    user: Owner = None,
    paths: Map = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            metavar="N",
            min=1,
            help="Look into about N blobs; of the others only that they are there, with their sizes.",
            show_default=False,
        ),
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read the bytes, instead of believing kept checksums.")] = False,
    jobs: Jobs = CONTENTS_TRANSFERS,
    limit: Rate = None,
    report: ReportFile = None,
    json: JsonLines = False,
) -> None:
    """Compare the target with the source and with what the rows say. Exits with 1 when something is wrong."""
    places = Places(url, source, directory, target, user, paths)

    async def work(ends: Ends, options: MoveOptions) -> ContentsReport:
        from dal.files_move.directory_checks import verify_directory
        from dal.files_move.verifying import verify as verify_contents

        rows, into = ends.data.store, ends.filled
        if ends.source is not None:
            return await verify_contents(ends.source, into, rows, sample=sample, deep=deep, options=options)
        root, owners = ends.tree
        return await verify_directory(root, into, rows, owners, deep=deep, options=options)

    if directory is not None and sample is not None:
        complain("--sample: a directory is verified whole; its files are read with --deep alone")
        raise typer.Exit(WRONG_USAGE)
    next_ = "Next: unset BLOB_FALLBACK_URL" if source is not None else ""
    _carry_out(
        places, work, jobs, limit, report, json, lambda found: next_ if found.is_clean else "", reads_target=True
    )


def rollback(
    url: Url = None,
    source: From = None,
    directory: FromDir = None,
    target: To = None,
    user: Owner = None,
    paths: Map = None,
    jobs: Jobs = CONTENTS_TRANSFERS,
    limit: Rate = None,
    report: ReportFile = None,
    json: JsonLines = False,
) -> None:
    """Copy back into the source what only the target holds, with the options that the move had.

    Before it, run the application with BLOB_URL naming the source again and BLOB_FALLBACK_URL the target, so that
    nothing is lost. From a directory's files, those that were uploaded since are written to DIR/since-the-move.
    """
    places = Places(url, source, directory, target, user, paths)

    async def work(ends: Ends, options: MoveOptions) -> ContentsReport:
        from dal.files_move.directory_back import roll_back_directory
        from dal.files_move.moving import move as move_contents

        if ends.source is not None:
            return await move_contents(ends.filled, ends.source, ends.data.store, action="rollback", options=options)
        root, _ = ends.tree
        return await roll_back_directory(root, ends.data.files, options=options)

    next_ = ""
    if source is not None and target is not None:
        back = places._replace(source=target, target=source)
        next_ = f"Next: dal files verify {_ends_again(back)}; then unset BLOB_FALLBACK_URL"
    _carry_out(places, work, jobs, limit, report, json, lambda _: next_, reads_target=True)


def _carry_out(
    places: Places,
    work: Callable[[Ends, MoveOptions], Awaitable[ContentsReport]],
    jobs: int,
    limit: str | None,
    path: Path | None,
    as_json: bool,
    next_: Callable[[ContentsReport], str],
    *,
    reads_target: bool = False,
) -> NoReturn:
    """Does the work between both ends and shows how far it is, tells what came of it, and exits."""
    check_ends(places, needs_target=True)

    async def whole() -> int:
        from dal.cli.files.progress import ContentsBars
        from dal.files_move.options import MoveOptions

        rate = limit_of(limit)
        async with opened_ends(places, reads_target=reads_target) as ends:
            with ContentsBars(as_json=as_json) as bars:
                told = MoveOptions(jobs=jobs, limit_bytes_s=rate, on_progress=bars.show, on_problem=bars.problem)
                found = await work(ends, told)
        return _tell(found, path, ends, as_json, next_(found))

    run(whole())


def _tell(found: ContentsReport, path: Path | None, ends: Ends, as_json: bool, next_: str) -> int:
    """Shows and writes what was done; the exit code it deserves."""
    from dal.cli.move.show import print_line, seconds
    from dal.files_move.report import verdict
    from dal.files_move.report_html import report_page
    from dal.files_move.tally import size_name

    target = ends.target_name or ""
    document = {"source": ends.source_name, "target": target, **found.as_dict()}
    if path is not None:
        _write(path, document, report_page(found, source=ends.source_name, target=target))
    if as_json:
        print_line({"event": "report", **document})
    rate = found.bytes / found.seconds if found.seconds else 0.0
    done = f"{found.files:,} files, {size_name(found.bytes)} in {seconds(found.seconds)} ({size_name(rate)}/s)"
    complain(one_line(f"{verdict(found)}; {done}"))
    if not found.is_clean:
        return FAILED
    if next_:
        complain(one_line(next_))
    return 0


def _ends_again(places: Places) -> str:
    from shlex import quote

    from dal.urls import mask_url

    source, target = places.source, places.target
    start = f"--from-dir {quote(str(places.directory))}" if source is None else f"--from {quote(mask_url(source))}"
    return f"{start} --to {quote(mask_url(target or ''))}"


def _assessed(made: Assessment, spent: list[Expense]) -> dict[str, object]:
    return {**made.as_dict(), "costs": [expense.as_dict() for expense in spent]}


def _write_assessment(path: Path | None, made: Assessment, spent: list[Expense], ends: Ends) -> None:
    if path is None:
        return
    from dal.files_move.report_html import assessment_page

    facts = [(f"{e.side}: {e.item.replace('_', ' ')} ({e.provider})", _priced(e)) for e in spent]
    page = assessment_page(made, source=ends.source_name, target=ends.target_name, facts=[*_times(made), *facts])
    _write(path, {"source": ends.source_name, "target": ends.target_name, **_assessed(made, spent)}, page)


def _show_assessment(made: Assessment, spent: list[Expense], ends: Ends) -> None:
    from dal.files_move.tally import size_name

    out = console()
    total, twice = made.tally.total, made.tally.duplicates
    named = f"{ends.source_name} to {ends.target_name}" if ends.target_name else ends.source_name
    rows: list[tuple[str, object, object]] = [
        ("there", total.files, size_name(total.bytes)),
        ("a move copies", made.moving.files, size_name(made.moving.bytes)),
        ("there twice", twice.files, size_name(twice.bytes)),
    ]
    out.print(table(named, ("", "files>", "bytes>"), rows))
    for title, amounts in (("by size", made.tally.histogram()), ("by type", made.tally.commonest())):
        shown = [(name, amount.files, size_name(amount.bytes)) for name, amount in amounts if amount.files]
        out.print(table(title, ("", "files>", "bytes>"), shown))
    if spent:
        paid = [(e.side, e.provider, e.item.replace("_", " "), e.quantity, _priced(e)) for e in spent]
        out.print(table("costs, storage for a month", ("", "provider", "item", "how much>", "cost>"), paid))
    if made.problems.samples:
        wrong = [(kind, one_line(key), one_line(text)) for kind, key, text in made.problems.samples]
        out.print(table("problems, some of each kind", ("kind", "where", "what"), wrong))
        complain(", ".join(f"{count:,} {kind}" for kind, count in made.problems.counts.items()))
    for _, text in _times(made):
        complain(text)


def _times(made: Assessment) -> list[tuple[str, str]]:
    """How long a move takes, as far as a trial tells."""
    from dal.cli.move.show import seconds
    from dal.files_move.tally import size_name

    if made.speed is None:
        return []
    tried = f"{made.speed.tried.files:,} files, {size_name(made.speed.tried.bytes)} were copied to tell"
    return [("time", f"a move takes about {seconds(made.move_s)} ({tried})")]


def _priced(expense: Expense) -> str:
    from dal.files.pricing import money

    return money(expense.cost_nanos)


def _write(path: Path, document: object, page: str) -> None:
    """Readable by its owner alone: names of files are nobody else's business either."""
    import os

    from dal.cli.output import compact_json
    from dal.errors import InvalidInputError

    data = (compact_json(document) + "\n") if path.suffix == ".json" else page
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(data)
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be written: {error.strerror}") from error
