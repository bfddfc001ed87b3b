"""`dal files grant` and `revoke`: who may use a file besides its owner."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.files.options import BlobUrl, FileId, UserKey, user_id_of, with_files
from dal.cli.options import AsJson, Url
from dal.cli.output import print_json
from dal.cli.running import FAILED, WRONG_USAGE, complain

if TYPE_CHECKING:
    from dal.access import DataAccess


class May(StrEnum):
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


def grant(
    file: FileId,
    url: Url = None,
    blob_url: BlobUrl = None,
    user: UserKey = None,
    link: Annotated[bool, typer.Option("--link", help="For whoever has the link, whose token is shown once.")] = False,
    permission: Annotated[
        May, typer.Option("--permission", help="read; write: rename and delete too; admin: grant too.")
    ] = May.READ,
    expires_in: Annotated[
        float | None, typer.Option("--expires-in", metavar="S", min=1, help="For so many seconds.", show_default=False)
    ] = None,
    json: AsJson = False,
) -> None:
    """Let a user, or whoever has a link, use a file."""
    if link == (user is not None):
        complain("name a user with --user, or say --link")
        raise typer.Exit(WRONG_USAGE)

    async def work(dal: DataAccess) -> int:
        if user is None:
            granted = await dal.files.link(file, permission.value, expires_in=expires_in)
        else:
            grantee = await user_id_of(dal, user)
            granted = await dal.files.grant(file, grantee, permission.value, expires_in=expires_in)
        if json:
            print_json(granted)
        else:
            typer.echo(granted.id if granted.token is None else granted.token)
            until = "until it is revoked" if granted.expires_at is None else f"until {granted.expires_at:%F %T} UTC"
            who = "whoever shows this token" if granted.token is not None else "the user"
            complain(f"{who} may {granted.permission} it {until}")
        return 0

    with_files(url, blob_url, work)


def revoke(
    file: FileId,
    url: Url = None,
    blob_url: BlobUrl = None,
    user: UserKey = None,
    permission_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="A grant or link by its id, as `show` lists it.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """Take back what was granted."""
    if (permission_id is None) == (user is None):
        complain("name a user with --user, or a permission with --id")
        raise typer.Exit(WRONG_USAGE)

    async def work(dal: DataAccess) -> int:
        grantee = None if user is None else await user_id_of(dal, user)
        was_there = await dal.files.revoke(file, grantee, permission_id=permission_id)
        if json:
            print_json({"file": file, "revoked": was_there})
        elif not was_there:
            complain("nothing of the kind was granted")
        return 0 if was_there else FAILED

    with_files(url, blob_url, work)
