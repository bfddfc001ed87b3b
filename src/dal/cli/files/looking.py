"""`dal files list`, `show`, `log` and `uploads`: what there is and what was done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.files.options import BlobUrl, FileId, UserKey, user_id_of, with_files
from dal.cli.options import After, AsJson, Limit, Url
from dal.cli.output import console, one_line, print_json, table
from dal.cli.running import FAILED, complain

if TYPE_CHECKING:
    from dal.access import DataAccess
    from dal.file_models import FileAccess


def list_files(
    url: Url = None,
    blob_url: BlobUrl = None,
    user: UserKey = None,
    status: Annotated[
        str | None, typer.Option("--status", help="With this status, as deleted.", show_default=False)
    ] = None,
    limit: Limit = 50,
    after: After = None,
    json: AsJson = False,
) -> None:
    """List files, newest first."""

    async def work(dal: DataAccess) -> int:
        user_id = None if user is None else await user_id_of(dal, user)
        page = await dal.files.list(user_id=user_id, status=status, limit=limit, after=after)
        if json:
            print_json(page)
            return 0
        rows = [
            (f.id, one_line(f.filename), one_line(f.mime_type), f.file_size, f.status, f.created_at) for f in page.items
        ]
        console().print(table(None, ("id", "name", "type", "bytes>", "status", "created"), rows))
        _say_more(page.next)
        return 0

    with_files(url, blob_url, work)


def show(file: FileId, url: Url = None, blob_url: BlobUrl = None, json: AsJson = False) -> None:
    """Show a file, who may use it, and what was done with it last."""

    async def work(dal: DataAccess) -> int:
        found = await dal.files.get(file)
        if found is None:
            complain(f"no file {one_line(file)!r}; a deleted one is in `dal files list --status deleted`")
            return FAILED
        permissions = await dal.files.permissions(found.id)
        log = (await dal.files.access_log(file_id=found.id, limit=10)).items
        if json:
            print_json({"file": found, "permissions": permissions, "log": log})
            return 0
        out = console()
        facts = found.model_dump()
        out.print(table(None, ("file", ""), [(n, one_line(v) if isinstance(v, str) else v) for n, v in facts.items()]))
        granted = [(p.id, p.grantee_id or "whoever has the link", p.permission, p.expires_at) for p in permissions]
        out.print(table(None, ("permission", "for", "may", "until"), granted))
        out.print(_log_table(log))
        return 0

    with_files(url, blob_url, work)


def log(
    url: Url = None,
    blob_url: BlobUrl = None,
    file: Annotated[str | None, typer.Option("--file", metavar="ID", help="Of this file.", show_default=False)] = None,
    user: UserKey = None,
    action: Annotated[
        str | None, typer.Option("--action", help="Of this kind, as upload or open.", show_default=False)
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what was refused or failed.")] = False,
    limit: Limit = 50,
    after: After = None,
    json: AsJson = False,
) -> None:
    """Show what was done with files, newest first."""

    async def work(dal: DataAccess) -> int:
        user_id = None if user is None else await user_id_of(dal, user)
        page = await dal.files.access_log(
            file_id=file, user_id=user_id, action=action, success=False if failed else None, limit=limit, after=after
        )
        if json:
            print_json(page)
            return 0
        console().print(_log_table(page.items))
        _say_more(page.next)
        return 0

    with_files(url, blob_url, work)


def uploads(
    url: Url = None,
    blob_url: BlobUrl = None,
    user: UserKey = None,
    status: Annotated[str, typer.Option("--status", help="active, completed, aborted or expired.")] = "active",
    limit: Limit = 50,
    after: After = None,
    json: AsJson = False,
) -> None:
    """List uploads in parts and by signed requests, newest first."""

    async def work(dal: DataAccess) -> int:
        user_id = None if user is None else await user_id_of(dal, user)
        page = await dal.files.list_uploads(user_id=user_id, status=status, limit=limit, after=after)
        if json:
            print_json(page)
            return 0
        rows = [
            (u.upload_id, one_line(u.filename), u.total_size, u.parts_uploaded, u.status, u.expires_at)
            for u in page.items
        ]
        console().print(table(None, ("upload", "name", "bytes>", "parts>", "status", "expires"), rows))
        _say_more(page.next)
        return 0

    with_files(url, blob_url, work)


def _log_table(entries: list[FileAccess]) -> object:
    rows = [
        (
            e.created_at,
            e.action,
            "ok" if e.success else one_line(e.error_message or "failed"),
            e.file_id,
            e.user_id,
            e.bytes_transferred,
            e.duration_ms,
            e.ip_address,
        )
        for e in entries
    ]
    return table(None, ("when", "what", "result", "file", "user", "bytes>", "ms>", "from"), rows)


def _say_more(cursor: str | None) -> None:
    if cursor is not None:
        complain(f"there are more: --after {cursor}")
