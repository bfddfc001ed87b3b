"""`dal demo`: a tour in a few seconds. Makes old data, imports it into SQLite, looks at it, says what to try next."""

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
from dal.cli.running import run

if TYPE_CHECKING:
    from rich.console import Console

    from dal.importing import ImportReport


def demo(
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            file_okay=False,
            help="Put data and database there instead of into a new temporary directory.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make old chat data, import it into SQLite, look at it, and say what to try next."""

    async def work() -> int:
        from dal.cli.chats import chat_table, print_messages
        from dal.cli.demo_data import write_demo_data
        from dal.cli.search import hit_table
        from dal.cli.users import memory_table
        from dal.factory import create_data_access
        from dal.importing import import_file

        directory = Path(mkdtemp(prefix="dal-demo-")) if keep is None else keep.resolve()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        out = console()
        conversations, memory = write_demo_data(directory)
        url = f"sqlite://{quote(str(directory / 'demo.db'))}"
        out.print(f"Old chat data:  {conversations}\nIts new home:   {url}\n", soft_wrap=True)

        async with create_data_access(url) as dal:
            for path in (conversations, memory):
                _print_report(out, await import_file(dal, path))

            _headline(out, "The latest chats (dal chats list)")
            out.print(chat_table((await dal.chats.list(limit=5)).items))

            _headline(out, "One of them (dal chats show)")
            print_messages(out, await dal.messages.history("demo-1-yuki-2"))

            _headline(out, "What is remembered of Ada (dal users show)")
            ada = await dal.users.get_by_clerk_id("ada")
            out.print(memory_table([] if ada is None else await dal.memory.list(ada.id)))

            for text in ("鶏肉", "cafe", "get_user_by_id"):
                _headline(out, f"Messages with {text} (dal search)")
                out.print(hit_table((await dal.messages.search(text, limit=3)).items))

        _print_next(out, url, conversations)
        if keep is None:
            out.print(f"  rm -r {shlex.quote(str(directory))}", soft_wrap=True)
        return 0

    run(work())


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


def _print_next(out: Console, url: str, conversations: Path) -> None:
    dal, to = _this_command(), f"--url {shlex.quote(url)}"
    _headline(out, "Try next")
    for line in (
        f"{dal} chats show demo-1-ada-1 {to}",
        f"{dal} users show yuki {to}",
        f"{dal} search 京都 {to} --json",
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
