"""Opening the two stores of a move: which they are, how they are shown, and what to do where one cannot be opened."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from dal.cli.places import shown_place
from dal.cli.running import run
from dal.errors import ConfigurationError, SchemaError

if TYPE_CHECKING:
    from dal.config import Settings
    from dal.move.sides import Sides
    from dal.store import Store
    from dal.urls import StoreUrl

_EMBEDDED: Final = ("file", "sqlite")


class Place(NamedTuple):
    """One store of a move, by URL or by settings.

    option    the option that names it, as `--to`.
    is_named  it stands on the command line; else the environment says it.
    """

    option: str
    url: str | None
    settings: Settings
    parsed: StoreUrl
    is_named: bool

    @property
    def backend(self) -> str:
        return self.parsed.backend

    @property
    def is_embedded(self) -> bool:
        """Whether a move may make and upgrade it by itself: its layout is nobody else's business."""
        return self.backend in _EMBEDDED

    @property
    def shown(self) -> str:
        return shown_place(self.url, self.settings)

    @property
    def argument(self) -> str:
        """As it stands on a command line that somebody is to type; nothing where the environment says it."""
        return f" {self.option} {quote(self.shown)}" if self.is_named else ""

    def free_bytes(self) -> int | None:
        """Free space where an embedded store lies."""
        if self.parsed.path is None:
            return None
        place: Path = self.parsed.path.absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        return shutil.disk_usage(place).free

    def store(self, *, auto_migrate: bool) -> Store:
        from dal.factory import create_store

        return create_store(self.url, settings=self.settings, auto_migrate=auto_migrate)

    @asynccontextmanager
    async def opened(self, *, auto_migrate: bool = False) -> AsyncIterator[Store]:
        """The bare store. Raises SchemaError, which says how to bring it up where that helps."""
        store = self.store(auto_migrate=auto_migrate)
        try:
            await store.open()
        except SchemaError as error:
            raise SchemaError(self.without_schema(error), backend=error.backend) from error
        try:
            yield store
        finally:
            await store.close()

    def without_schema(self, error: SchemaError) -> str:
        """What is to be said of a store that cannot be opened for that."""
        side = "target" if self.option in ("--to", "--scratch") else "source"
        return f"the {side}: {error.message}"


class Places(NamedTuple):
    """Both stores of a move."""

    source: Place
    target: Place

    @property
    def arguments(self) -> str:
        """The options that name both, for commands that are proposed."""
        return self.source.argument + self.target.argument

    @property
    def for_cutover(self) -> str:
        """The same for `dal move cutover`, which wants to be told where there is no way back."""
        return self.arguments + (" --one-way" if self.is_one_way else "")

    @property
    def is_one_way(self) -> bool:
        return self.source.backend == "legacy"

    def to_json(self) -> dict[str, str]:
        return {"source": self.source.shown, "target": self.target.shown}


def source_place(url: str | None) -> Place:
    """What --from or the environment names."""
    from dal.config import Settings
    from dal.factory import store_url
    from dal.urls import parse_url

    settings = Settings()
    return Place("--from", url, settings, parse_url(url) if url is not None else store_url(settings), url is not None)


def target_place(url: str | None) -> Place:
    """What --to or MIGRATION_TARGET_URL or MIGRATION_TARGET_TYPE name. Raises ConfigurationError where none does."""
    from dal.config import Settings
    from dal.factory import target_url
    from dal.urls import parse_url

    settings = Settings()
    if url is not None:
        return Place("--to", url, settings, parse_url(url), is_named=True)
    if settings.migration_target_url is None and settings.migration_target_type is None:
        raise ConfigurationError("--to: not given; name the target there, or in MIGRATION_TARGET_URL")
    parsed = target_url(settings)
    if settings.migration_target_url is not None:
        return Place("--to", settings.migration_target_url.get_secret_value(), settings, parsed, is_named=False)
    settings = settings.model_copy(update={"data_storage_type": settings.migration_target_type})
    return Place("--to", None, settings, parsed, is_named=False)


def both_places(source: str | None, target: str | None) -> Places:
    """Raises ConfigurationError where both are the same store."""
    from dal.urls import is_same_store

    places = Places(source_place(source), target_place(target))
    if is_same_store(places.source.parsed, places.target.parsed):
        raise ConfigurationError("--to: names the store that is to be moved; name another")
    return places


@asynccontextmanager
async def both_opened(places: Places, *, make_target: bool = False) -> AsyncIterator[tuple[Store, Store, Sides]]:
    """Both bare stores, and the moves' side of them.

    make_target  an embedded target is made, or brought up to the current schema; others are their administrators'.
    """
    from dal.move.operating import sides_of

    async with places.source.opened() as source:
        may_make = make_target and places.target.is_embedded
        async with places.target.opened(auto_migrate=may_make) as target:
            yield source, target, sides_of(source, target)


def end_on_sigterm() -> None:
    """Lets SIGTERM end the command as Ctrl-C does: what is half done is taken back first."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # it is called from a coroutine
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def with_sides(
    source: str | None,
    target: str | None,
    work: Callable[[Sides, Places], Awaitable[int]],
    *,
    make_target: bool = False,
) -> NoReturn:
    """Opens both stores, does the work with them, and exits with the code that it returns."""

    async def opened() -> int:
        end_on_sigterm()
        places = both_places(source, target)
        async with both_opened(places, make_target=make_target) as (_, _, sides):
            return await work(sides, places)

    run(opened())
