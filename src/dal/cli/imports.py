"""`dal import`: old chat data from files into the store, with a progress bar, a summary and a report of refusals."""

from __future__ import annotations

import os
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.options import AsJson, Url
from dal.cli.output import console, one_line, print_json, table
from dal.cli.running import FAILED, WRONG_USAGE, complain, with_store

if TYPE_CHECKING:
    from dal.access import DataAccess
    from dal.importing import ImportReport

_SHOWN_REFUSALS = 20
_DEFAULT_BATCH_ROWS = 5000  # as dal.importing has it; reading it there would cost every command its start
_MAX_BATCH_ROWS = 15_000


class Format(StrEnum):
    AUTO = "auto"
    CONVERSATIONS = "conversations"
    MEMORY = "memory"
    CHATGPT = "chatgpt"
    CLAUDE = "claude"
    OPENWEBUI = "openwebui"
    LANGCHAIN = "langchain"
    LANGCHAIN_SQLITE = "langchain-sqlite"
    DIALOGUE = "dialogue"


class OnBadText(StrEnum):
    REFUSE = "refuse"
    REPLACE = "replace"


def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="JSON lines of conversations or user memory, other systems' exports, or directories of these.",
            exists=True,
            readable=True,
            show_default=False,
        ),
    ],
    url: Url = None,
    on_bad_text: Annotated[
        OnBadText,
        typer.Option(help="Records with U+0000 or lone surrogates: refuse them, or replace those by U+FFFD."),
    ] = OnBadText.REFUSE,
    format: Annotated[
        Format, typer.Option(help="What the files are; auto: exports that are certain, else lines by their fields.")
    ] = Format.AUTO,
    user: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Whose an export's chats are where it names nobody.", show_default=False),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=_MAX_BATCH_ROWS, help="Rows of one commit.")
    ] = _DEFAULT_BATCH_ROWS,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE", help="Write every refused record there, as JSON lines.", show_default=False
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Import conversations and user memory.

    Each conversation is written whole or not at all; what is there already is left alone. Stop it at any time and run
    the same command again: it goes on. Exits with 1 when a record was refused.
    """
    with ExitStack() as stack:
        refusal_file = None
        if report is not None:
            try:
                descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            except OSError as error:
                complain(f"{report}: cannot be written: {error.strerror}")
                raise typer.Exit(WRONG_USAGE) from None
            refusal_file = stack.enter_context(os.fdopen(descriptor, "wb", buffering=0))

        async def work(dal: DataAccess) -> int:
            from dal.cli.progress import ImportProgress
            from dal.importing import Refusal, import_file

            def on_refusal(refusal: Refusal) -> None:
                if refusal_file is not None:
                    refusal_file.write(refusal.json_line())

            reports: list[ImportReport] = []
            for path in files:
                with ImportProgress(path) as progress:
                    done = await import_file(
                        dal,
                        path,
                        format=format.value,
                        user=user,
                        on_bad_text=on_bad_text.value,
                        batch_rows=batch,
                        on_progress=progress.show,
                        on_refusal=on_refusal,
                    )
                reports.append(done)
            if json:
                print_json({"files": [done.as_dict() for done in reports]})
            else:
                console().print(_summary(reports))
            _complain_of_refusals(reports, report)
            return FAILED if any(done.refused for done in reports) else 0

        with_store(url, work, may_create=True)


def _summary(reports: list[ImportReport]) -> object:
    return table(
        None,
        (
            "file",
            "users>",
            "chats>",
            "messages>",
            "memory>",
            "unchanged>",
            "refused>",
            "replaced>",
            "s>",
            "messages/s>",
        ),
        [
            (
                one_line(Path(r.file).name),
                r.users,
                r.chats + r.grown,
                r.messages,
                r.memory_items,
                r.unchanged,
                r.refused,
                r.replaced,
                r.load_s + r.index_s,
                round(r.messages_per_s),
            )
            for r in reports
        ],
    )


def _complain_of_refusals(reports: list[ImportReport], written_to: Path | None) -> None:
    refused = sum(r.refused for r in reports)
    if not refused:
        return
    for refusal in [refusal for r in reports for refusal in r.refusals][:_SHOWN_REFUSALS]:
        key = refusal.chat_id or refusal.user
        of = "" if key is None else f" ({one_line(key)})"
        complain(f"refused {refusal.file}:{refusal.line}{of}: {one_line(refusal.reason)}")
    if refused > _SHOWN_REFUSALS:
        where = "--report FILE lists them" if written_to is None else f"all are in {written_to}"
        complain(f"… and {refused - _SHOWN_REFUSALS:,} more; {where}")
