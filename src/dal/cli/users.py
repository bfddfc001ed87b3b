"""`dal users list` and `dal users show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.options import After, AsJson, Limit, Url
from dal.cli.output import compact_json, console, one_line, print_json, table
from dal.cli.running import FAILED, complain, with_store

if TYPE_CHECKING:
    from dal.access import DataAccess
    from dal.models import MemoryItem, User

app = typer.Typer(help="Users and what is remembered of them.", no_args_is_help=True)


@app.command("list")
def list_users(
    url: Url = None,
    status: Annotated[str | None, typer.Option("--status", help="With this status.", show_default=False)] = None,
    email: Annotated[str | None, typer.Option("--email", help="With this address.", show_default=False)] = None,
    limit: Limit = 50,
    after: After = None,
    json: AsJson = False,
) -> None:
    """List users, newest first."""

    async def work(dal: DataAccess) -> int:
        page = await dal.users.list(status=status, email=email, limit=limit, after=after)
        if json:
            print_json(page)
            return 0
        rows = [(u.id, one_line(u.clerk_id or ""), one_line(u.name or ""), u.status, u.created_at) for u in page.items]
        console().print(table(None, ("id", "clerk id", "name", "status", "created"), rows))
        if page.next is not None:
            complain(f"there are more: --after {page.next}")
        return 0

    with_store(url, work)


@app.command("show")
def show_user(
    user: Annotated[str, typer.Argument(help="The user's id or clerk id.", show_default=False)],
    url: Url = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many chats at most.")] = 10,
    json: AsJson = False,
) -> None:
    """Show a user, their memory and their latest chats."""

    async def work(dal: DataAccess) -> int:
        from dal.cli.chats import chat_table

        found = await find_user(dal, user)
        if found is None:
            complain(f"no user {one_line(user)!r}")
            return FAILED
        memory = await dal.memory.list(found.id)
        chats = await dal.chats.list(user_id=found.id, limit=limit)
        if json:
            print_json({"user": found, "memory": memory, "chats": chats})
            return 0
        out = console()
        facts = found.model_dump()
        out.print(table(None, ("user", ""), [(n, one_line(v) if isinstance(v, str) else v) for n, v in facts.items()]))
        out.print(memory_table(memory))
        out.print(chat_table(chats.items))
        return 0

    with_store(url, work)


async def find_user(dal: DataAccess, key: str) -> User | None:
    """The user with this clerk id, else with this id."""
    return await dal.users.get_by_clerk_id(key) or await dal.users.get(key)


def memory_table(items: list[MemoryItem]) -> object:
    """What is remembered of a user as a table for people."""
    rows = [
        (
            one_line(item.memory_type),
            one_line(item.key),
            one_line(item.value if isinstance(item.value, str) else compact_json(item.value)),
            item.expires_at,
        )
        for item in items
    ]
    return table(None, ("type", "key", "value", "expires"), rows)
