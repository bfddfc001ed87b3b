"""From and to where contents move: what the options name, opened, and what it is called without its secrets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from dal.cli.running import WRONG_USAGE, complain
from dal.errors import InvalidInputError

if TYPE_CHECKING:
    from dal.access import DataAccess
    from dal.blobs.base import BlobStore
    from dal.files_move.owners import Owners


class Places(NamedTuple):
    """What the options of a command name: the store of the rows, and both ends."""

    url: str | None
    source: str | None
    directory: Path | None
    target: str | None
    user: str | None
    paths: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Both ends of a move. `source` is None where a directory is moved; then `owners` say whose its files are.

    data  the store whose rows speak of the contents, its own contents those of the target.
    """

    source: BlobStore | None
    root: Path | None
    owners: Owners | None
    target: BlobStore | None
    data: DataAccess
    source_name: str
    target_name: str | None
    source_provider: str | None
    target_provider: str | None

    @property
    def filled(self) -> BlobStore:
        """The target, of a command that needs one: check_ends has seen to it."""
        assert self.target is not None  # noqa: S101
        return self.target

    @property
    def tree(self) -> tuple[Path, Owners]:
        """The directory, where there is no source, and whose its files are."""
        assert self.root is not None and self.owners is not None  # noqa: S101, PT018
        return self.root, self.owners


def check_ends(places: Places, *, needs_target: bool) -> None:
    """Ends the command where the options do not say what is moved, or where to."""
    if (places.source is None) == (places.directory is None):
        complain("name the contents with --from BLOB_URL, or a plain directory with --from-dir DIR")
        raise typer.Exit(WRONG_USAGE)
    if places.target is None and needs_target:
        complain("name with --to BLOB_URL where the contents are to lie")
        raise typer.Exit(WRONG_USAGE)


@asynccontextmanager
async def opened_ends(places: Places, *, reads_target: bool = False) -> AsyncIterator[Ends]:
    """Both ends and the data store, open. Requests to either are added to the day's counters.

    reads_target  the target has to be there already; a source always has to.
    """
    from dal.blobs.counted import counted_in
    from dal.blobs.factory import bare_blob_store
    from dal.blobs.urls import parse_blob_url
    from dal.config import Settings
    from dal.factory import create_data_access
    from dal.files.recording import UsageRecorder
    from dal.urls import mask_url
    from dal.values import now

    url, source, directory, target, user, paths = places
    settings = Settings().model_copy(update={"blob_url": None, "blob_fallback_url": None, "blob_cache_dir": None})
    if source is not None and target is not None and parse_blob_url(source) == parse_blob_url(target):
        raise InvalidInputError("--from and --to name the same place")
    if source is not None and (user is not None or paths is not None):
        raise InvalidInputError("--user and --map say whose a directory's files are; they go with --from-dir")
    read = [("--from", _directory_of(source)), ("--from-dir", directory)]
    for option, path in [*read, ("--to", _directory_of(target) if reads_target else None)]:
        if path is not None and not path.is_dir():  # nothing else runs
            raise InvalidInputError(f"{option}: there is no directory {path}")
    async with AsyncExitStack() as stack:
        store = None if source is None else bare_blob_store(source, settings=settings)
        other = None if target is None else bare_blob_store(target, settings=settings)
        for blobs in (store, other):
            if blobs is not None:
                stack.push_async_callback(blobs.close)
                await blobs.open()
        data = await stack.enter_async_context(
            create_data_access(url, settings=settings, blob_url=target if directory else None, auto_migrate=False)
        )
        counted = [counted for blobs in (store, other) for counted in counted_in(blobs)]
        recorder = UsageRecorder(data.files.monitoring.metrics, counted, now)
        stack.push_async_callback(recorder.close)
        recorder.start()
        yield Ends(
            source=store,
            root=directory,
            owners=None if directory is None else await _owners(data, user, paths),
            target=other,
            data=data,
            source_name=str(directory) if source is None else mask_url(source),
            target_name=None if target is None else mask_url(target),
            source_provider=next((c.provider for c in counted_in(store)), None),
            target_provider=next((c.provider for c in counted_in(other)), None),
        )


def _directory_of(url: str | None) -> Path | None:
    """The directory that a blob store's URL names; None for one that is none."""
    from dal.blobs.urls import parse_blob_url

    return None if url is None else parse_blob_url(url).path


async def _owners(data: DataAccess, user: str | None, paths: Path | None) -> Owners:
    from dal.cli.users import find_user
    from dal.files_move.owners import read_owners

    async def find(key: str) -> str | None:
        found = await find_user(data, key)
        return None if found is None else found.id

    if user is None and paths is None:
        raise InvalidInputError("--user USER: whose the files of the directory are; or --map FILE")
    return await read_owners(user, paths, find)
