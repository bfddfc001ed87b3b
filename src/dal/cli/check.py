"""`dal check`: whether two stores hold the same, while both are in use, and which rows differ if not."""

from __future__ import annotations

import json as json_module
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.options import AsJson
from dal.cli.output import console, one_line, print_json, table
from dal.cli.running import FAILED, UNFINISHED, WRONG_USAGE, complain, run

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from dal.move.check_report import CheckReport
    from dal.move.differences import Difference
    from dal.move.repair import Repair
    from dal.ops import JsonValue
    from dal.store import Store

_SHOWN_DIFFERENCES = 20


class CheckMode(StrEnum):
    QUICK = "quick"
    DEEP = "deep"
    TAIL = "tail"


def check(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A store, as for --url.", show_default=False)],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The other one.", show_default=False)],
    mode: Annotated[
        CheckMode,
        typer.Option(
            help="deep: every row of both. In a move also quick: registry against registry, and tail: what was copied "
            "since the last check of the move."
        ),
    ] = CheckMode.DEEP,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="UNITS", help="Of memory,chats,files,users,audit.", show_default=False),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", metavar="N", min=1, help="About N rows of each table.", show_default=False),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            "--max-seconds",
            metavar="S",
            min=0,
            help="Stop after S seconds; what was compared is said.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="FILE",
            help="Where a check that ran out of time notes how far it came, and goes on from the next time.",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE", help="Write a page of HTML there.", dir_okay=False, show_default=False
        ),
    ] = None,
    show_content: Annotated[
        bool, typer.Option("--show-content", help="Let that page show the values that differ.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="In a move: show what would be copied again; with --yes, have it copied.")
    ] = False,
    delete_extra: Annotated[
        bool, typer.Option("--delete-extra", help="Repair also deletes rows that only the replica has.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Carry the repair out.")] = False,
    json: AsJson = False,
) -> None:
    """Compare two stores, row by row, while both are in use.

    A row that is being changed or copied is no difference: what seems to differ is looked at again until it is equal,
    or stays as it is. Exits with 1 when rows differ or could not be settled, and with 3 when time was up before the end
    and nothing differed so far. No content is shown unless you ask for it.
    """
    if (delete_extra or yes) and not repair:
        complain("--delete-extra and --yes go with --repair")
        raise typer.Exit(WRONG_USAGE)

    async def work() -> int:
        from contextlib import AsyncExitStack

        from dal.cli.check_progress import CheckBars
        from dal.factory import create_store
        from dal.move import checking
        from dal.move import repair as repairing
        from dal.replica import UNITS
        from dal.urls import mask_url

        names = mask_url(source), mask_url(target)
        units = tuple(UNITS) if only is None else tuple(name.strip() for name in only.split(",") if name.strip())
        began = _state(resume)
        differences: list[Difference] = []
        async with AsyncExitStack() as stack:
            ours = await _opened(stack, create_store(source, auto_migrate=False))
            theirs = await _opened(stack, create_store(target, auto_migrate=False))
            with CheckBars() as bars:
                found = await checking.check(
                    ours,
                    theirs,
                    mode=mode.value,
                    units=units,
                    sampled=sample,
                    max_seconds=max_seconds,
                    resume=began,
                    on_progress=bars.show if bars.is_shown else None,
                    on_difference=differences.append if repair else None,
                )
            repaired: Repair | None = None
            if repair:
                repaired = await repairing.repair(ours, theirs, differences, delete_extra=delete_extra, dry_run=not yes)
        _save_state(resume, found)
        if report is not None:
            _write_page(report, found, names, show_content=show_content)
        if json:
            document: dict[str, JsonValue] = {"source": names[0], "target": names[1], **found.as_dict()}
            print_json(document if repaired is None else {**document, "repair": repaired.as_dict()})
        else:
            show_check(found, names, repaired)
        if not found.is_equal:
            return FAILED
        return 0 if found.stopped is None else UNFINISHED

    run(work())


async def _opened(stack: AsyncExitStack, store: Store) -> Store:
    await store.open()
    stack.push_async_callback(store.close)
    return store


def _state(path: Path | None) -> CheckReport | None:
    """How far an earlier check came; None where there was none, or it came to its end."""
    from dal.errors import InvalidInputError
    from dal.move.check_report import report_of

    if path is None or not path.exists():
        return None
    try:
        return report_of(json_module.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not the state of a check; remove it"
        raise InvalidInputError(f"{path}: cannot be used: {reason}") from error


def _save_state(path: Path | None, found: CheckReport) -> None:
    from dal.move.report_html import how_far

    if found.stopped is not None:
        complain(f"time was up in {found.stopped.table}: not everything was compared, {how_far(found)}")
    if path is None:
        return
    if found.stopped is None:
        path.unlink(missing_ok=True)
    else:
        _write(path, json_module.dumps(found.as_dict()).encode())


def _write_page(path: Path, found: CheckReport, names: tuple[str, str], *, show_content: bool) -> None:
    from dal.move.report_html import html_page

    _write(path, html_page(found, source=names[0], target=names[1], show_content=show_content).encode())


def _write(path: Path, data: bytes) -> None:
    """Readable by its owner alone: ids are nobody else's business either."""
    from dal.errors import InvalidInputError

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be written: {error.strerror}") from error


def show_check(found: CheckReport, names: tuple[str, str], repaired: Repair | None) -> None:
    """A check, and a repair if there was one, for people."""
    from dal.move.differences import KINDS
    from dal.move.report_html import verdict

    out = console()
    heads = ("table", "source>", "target>", "equal>", *(f"{kind.replace('_', ' ')}>" for kind in KINDS), "pending>")
    rows = [
        (name, r.source, r.target, r.equal, *(r.counts.get(kind, 0) for kind in KINDS), r.pending)
        for name, r in found.tables.items()
    ]
    with_rows = [row for row in rows if any(row[1:])]
    out.print(table(f"{names[0]} and {names[1]}", heads, with_rows or rows))
    samples = [sample for result in found.tables.values() for sample in result.samples][:_SHOWN_DIFFERENCES]
    if samples:
        shown = [(d.kind.replace("_", " "), d.side, d.table, one_line(d.id), ", ".join(d.fields)) for d in samples]
        out.print(table(None, ("difference", "in the", "table", "id", "fields"), shown))
    for side, sentences in found.damage.items():
        for sentence in sentences:
            complain(f"the {side} cannot read {one_line(sentence)}")
    if repaired is not None:
        _show_repair(repaired)
    rate = found.rows / found.seconds if found.seconds else 0.0
    complain(f"{verdict(found)}; {found.rows:,} rows of both sides, {found.seconds:,.1f} s, {rate:,.0f} rows/s")


def _show_repair(repaired: Repair) -> None:
    copied, deleted = (sum(len(ids) for ids in found.values()) for found in (repaired.copied, repaired.deleted))
    if not repaired.rows:
        complain("repair: there is nothing to copy or to delete")
    elif repaired.done:
        complain(
            f"repair: {copied:,} rows to be copied and {deleted:,} to be deleted; the move does it in its next round"
        )
    else:
        complain(f"repair: would copy {copied:,} rows and delete {deleted:,}; --yes does it")
    if repaired.left:
        complain(f"repair: {repaired.left:,} extra rows are left alone; --delete-extra deletes them")
    if repaired.doubtful:
        complain(
            f"repair: {repaired.doubtful:,} rows changed in the primary behind its registry; restore them there first"
        )
    if repaired.orphans:
        complain(f"repair: {repaired.orphans:,} orphans; restore their parents, or delete them where they are")
