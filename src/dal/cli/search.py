"""`dal search TEXT`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.options import After, AsJson, Limit, Url
from dal.cli.output import console, one_line, print_json, table
from dal.cli.running import FAILED, complain, with_store
from dal.cli.users import find_user

if TYPE_CHECKING:
    from dal.access import DataAccess
    from dal.models import SearchHit


def search(
    text: Annotated[str, typer.Argument(help="Plain text: every word of it must occur.", show_default=False)],
    url: Url = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="In this user's chats only.", show_default=False)
    ] = None,
    chat: Annotated[
        str | None, typer.Option("--chat", metavar="CHAT", help="In this chat only.", show_default=False)
    ] = None,
    limit: Limit = 20,
    after: After = None,
    json: AsJson = False,
) -> None:
    """Find messages, newest first.

    `dal search rebuild` and `dal search drop` are commands of their own; to search for such a word, put `--` before it.
    """

    async def work(dal: DataAccess) -> int:
        user_id = None
        if user is not None:
            found = await find_user(dal, user)
            if found is None:
                complain(f"no user {one_line(user)!r}")
                return FAILED
            user_id = found.id
        page = await dal.messages.search(text, user_id=user_id, chat_id=chat, limit=limit, after=after)
        if json:
            print_json(page)
        elif page.items:
            console().print(hit_table(page.items))
        else:
            complain("nothing found")
        if page.next is not None and not json:
            complain(f"there are more: --after {page.next}")
        return 0

    with_store(url, work)


def hit_table(hits: list[SearchHit]) -> object:
    """Hits as a table for people."""
    rows = [
        (
            one_line(h.message.chat_id),
            h.message.sequence_number,
            h.message.created_at,
            h.message.role,
            one_line(h.snippet),
        )
        for h in hits
    ]
    return table(None, ("chat", "message>", "time", "role", "text"), rows)
