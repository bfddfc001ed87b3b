"""`dal chats list` and `dal chats show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.options import After, AsJson, Limit, Url
from dal.cli.output import console, one_line, print_json, printable, table
from dal.cli.running import FAILED, complain, with_store
from dal.cli.users import find_user

if TYPE_CHECKING:
    from rich.console import Console

    from dal.access import DataAccess
    from dal.models import ChatSession, Message

app = typer.Typer(help="Chats and their messages.", no_args_is_help=True)


@app.command("list")
def list_chats(
    url: Url = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Of this user: id or clerk id.", show_default=False)
    ] = None,
    status: Annotated[str | None, typer.Option("--status", help="With this status.", show_default=False)] = None,
    limit: Limit = 50,
    after: After = None,
    json: AsJson = False,
) -> None:
    """List chats, latest activity first."""

    async def work(dal: DataAccess) -> int:
        user_id = None
        if user is not None:
            found = await find_user(dal, user)
            if found is None:
                complain(f"no user {one_line(user)!r}")
                return FAILED
            user_id = found.id
        page = await dal.chats.list(user_id=user_id, status=status, limit=limit, after=after)
        if json:
            print_json(page)
            return 0
        console().print(chat_table(page.items))
        if page.next is not None:
            complain(f"there are more: --after {page.next}")
        return 0

    with_store(url, work)


@app.command("show")
def show_chat(
    chat_id: Annotated[str, typer.Argument(help="The chat's own key.", show_default=False)],
    url: Url = None,
    limit: Limit = 20,
    before: Annotated[
        int | None, typer.Option("--before", min=1, help="Only messages before this number.", show_default=False)
    ] = None,
    json: AsJson = False,
) -> None:
    """Show a chat and its newest messages, oldest of them first."""

    async def work(dal: DataAccess) -> int:
        chat = await dal.chats.get(chat_id)
        if chat is None:
            complain(f"no chat {one_line(chat_id)!r}")
            return FAILED
        messages = await dal.messages.history(chat_id, limit=limit, before=before)
        if json:
            print_json({"chat": chat, "messages": messages})
            return 0
        out = console()
        out.print(table(None, ("chat", ""), _facts(chat)))
        print_messages(out, messages)
        if messages and messages[0].sequence_number > 1:
            complain(f"there are earlier ones: --before {messages[0].sequence_number}")
        return 0

    with_store(url, work)


def chat_table(chats: list[ChatSession]) -> object:
    """Chats as a table for people."""
    return table(
        None,
        ("chat", "title", "messages>", "latest activity", "status"),
        [
            (one_line(c.chat_id), one_line(c.title or ""), c.message_count, c.last_message_at or c.created_at, c.status)
            for c in chats
        ],
    )


def print_messages(out: Console, messages: list[Message]) -> None:
    """Messages one below the other, as a person reads a conversation."""
    from rich.padding import Padding
    from rich.text import Text

    for message in messages:
        head = f"{message.sequence_number:>4}  {one_line(message.role)}  {message.created_at:%Y-%m-%d %H:%M:%S}"
        out.print(Text(head + ("  FLAGGED" if message.abuse_flagged else ""), style="bold"))
        out.print(Padding(Text(printable(message.content)), (0, 0, 1, 6)))


def _facts(chat: ChatSession) -> list[tuple[str, object]]:
    facts = chat.model_dump()
    return [(name, one_line(value) if isinstance(value, str) else value) for name, value in facts.items()]
