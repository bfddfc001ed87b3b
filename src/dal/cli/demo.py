"""`dal demo`: a tour in half a minute. Makes old data and imports it into files, moves those to SQLite while writers go
on writing, looks at what came of it, and says what to try next.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from dal.cli.output import console
from dal.cli.running import FAILED, complain, run

if TYPE_CHECKING:
    from rich.console import Console

    from dal.access import DataAccess
    from dal.cli.demo_writers import Writers
    from dal.cli.move.stores import Places
    from dal.importing import ImportReport

_WRITERS = 4
_PAUSE_S = 0.05


def demo(
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            file_okay=False,
            help="Put data and stores there instead of into a new temporary directory.",
            show_default=False,
        ),
    ] = None,
    chats: Annotated[
        int, typer.Option("--chats", metavar="COUNT", min=7, max=100_000, help="So many old chats are made.")
    ] = 700,
) -> None:
    """Make old chat data, import it into files, move them to SQLite under writes, look at it, say what to try next.

    Exits with 1 when anything that was there, or was acknowledged to a writer, is missing at the end.
    """

    async def work() -> int:
        from dal.cli.demo_data import write_demo_data
        from dal.cli.demo_move import is_retired, move
        from dal.cli.demo_writers import Writers, missing, moving_settings
        from dal.cli.move.stores import both_places
        from dal.factory import create_data_access
        from dal.importing import import_file
        from dal.values import new_id

        directory = Path(mkdtemp(prefix="dal-demo-")) if keep is None else keep.resolve()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        out = console()
        source, target = (
            f"{kind}://{quote(str(directory / name))}" for kind, name in (("file", "data"), ("sqlite", "demo.db"))
        )
        places = both_places(source, target)
        if await is_retired(places):
            complain(f"{directory}: its files were moved away for good by an earlier demo; name another directory")
            return FAILED
        old = write_demo_data(directory, chats)
        out.print(
            f"Old chat data:     {old[0]}\nA store of files:  {source}\nIts new home:      {target}\n", soft_wrap=True
        )
        async with create_data_access(source, settings=moving_settings(target)) as dal:
            for path in old:
                _print_report(out, await import_file(dal, path))

        _headline(out, f"The move to SQLite, while {_WRITERS} writers go on writing (dal move)")
        writers = Writers(source, target, _WRITERS, name=f"writer-{new_id()[-6:]}", pause_s=_PAUSE_S)
        try:
            await writers.start()
            is_equal = await move(out, places, writers)
        finally:
            await writers.close()

        async with create_data_access(target) as dal:
            lost = await missing(dal, writers.ledgers)
            for path in old:
                found = await import_file(dal, path)
                if found.rows:
                    lost.append(f"{path.name}: {found.rows} rows of it were not there any more")
            _print_account(out, writers, lost)
            await _print_tour(out, dal)

        _print_next(out, places, target, old[0])
        if keep is None:
            out.print(f"  rm -r {shlex.quote(str(directory))}", soft_wrap=True)
        return 0 if is_equal and not lost and not writers.failed else FAILED

    run(work())


def _print_account(out: Console, writers: Writers, lost: list[str]) -> None:
    """What became of what the writers wrote, and of the old data."""
    from dal.cli.demo_screen import print_line

    slowest_ms = max(ledger.slowest_s for ledger in writers.ledgers) * 1000
    answered = f"{writers.acknowledged:,} calls answered, {writers.failed} failed"
    print_line(out, "writers", f"{answered}, the slowest in {slowest_ms:.0f} ms")
    for problem in [problem for ledger in writers.ledgers for problem in ledger.problems]:
        print_line(out, "FAILED", problem)
    for line in lost:
        print_line(out, "LOST", line)
    if not lost:
        print_line(out, "in SQLite", "all the old data, and every write that was acknowledged")


async def _print_tour(out: Console, dal: DataAccess) -> None:
    from dal.cli.chats import chat_table, print_messages
    from dal.cli.search import hit_table
    from dal.cli.users import memory_table

    _headline(out, "The latest chats (dal chats list)")
    out.print(chat_table((await dal.chats.list(limit=_WRITERS + 3)).items))

    _headline(out, "One of them (dal chats show)")
    print_messages(out, await dal.messages.history("demo-1-yuki-2"))

    _headline(out, "What is remembered of Ada (dal users show)")
    ada = await dal.users.get_by_clerk_id("ada")
    out.print(memory_table([] if ada is None else await dal.memory.list(ada.id)))

    for text in ("鶏肉", "cafe", "get_user_by_id"):
        _headline(out, f"Messages with {text} (dal search)")
        out.print(hit_table((await dal.messages.search(text, limit=3)).items))


def _headline(out: Console, text: str) -> None:
    from rich.text import Text

    out.print(Text(f"\n{text}", style="bold"))


def _print_report(out: Console, report: ImportReport) -> None:
    new = [
        f"{count} {name}"
        for count, name in (
            (report.users, "users"),
            (report.chats, "chats"),
            (report.messages, "messages"),
            (report.memory_items, "memory items"),
        )
        if count
    ]
    there = f"; {report.unchanged} records were there already" if report.unchanged else ""
    out.print(f"{Path(report.file).name}: {', '.join(new) or 'nothing new'}{there}", soft_wrap=True)
    for refusal in report.refusals:
        out.print(f"  refused, line {refusal.line} ({refusal.chat_id}): {refusal.reason}", soft_wrap=True)


def _print_next(out: Console, places: Places, url: str, conversations: Path) -> None:
    dal, to = _this_command(), f"--url {shlex.quote(url)}"
    _headline(out, "Try next")
    for line in (
        f"{dal} chats show demo-1-ada-1 {to}",
        f"{dal} users show yuki {to}",
        f"{dal} search 京都 {to} --json",
        f"{dal} move status{places.arguments}",
        f"{dal} move check{places.arguments}",
        f"{dal} import {shlex.quote(str(conversations))} {to} --on-bad-text replace",
        f"{dal} doctor {to}",
    ):
        out.print(f"  {line}", soft_wrap=True)


def _this_command() -> str:
    """How this very command can be run again from the same shell."""
    started = Path(sys.argv[0])
    found = shutil.which("dal")
    if started.name == "dal" and found is not None and started.exists() and Path(found).samefile(started):
        return "dal"
    if started.name == "dal" and started.exists():
        return shlex.quote(str(started))
    return f"{shlex.quote(sys.executable)} -m dal.cli"
