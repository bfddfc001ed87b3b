"""Which database this is: its name, and what serves it. Backups and environments ask, so that none is mistaken."""

from __future__ import annotations

from pathlib import PurePath
from typing import Protocol, runtime_checkable

from dal.schema.connection import Reader


@runtime_checkable
class Named(Protocol):
    """A database that is told its name by other means than SQL and the address, as on D1."""

    async def database_name(self) -> str: ...


async def database_name(reader: Reader) -> str:
    """The name by which its administrators know it; for SQLite, the file's without its suffix."""
    if isinstance(reader, Named):
        return await reader.database_name()
    if reader.engine == "postgresql":
        ((name,),) = await reader.fetch("SELECT current_database()::text")
        return str(name)
    address = reader.address.partition(":")[2] or reader.address
    return readable(PurePath(address).stem)


async def server_version(reader: Reader) -> str:
    """As the engine writes it: `15.13`, `3.40.1`; `hosted` for D1, which does not tell."""
    if is_d1(reader):
        return "hosted"
    if reader.engine == "postgresql":
        ((version,),) = await reader.fetch("SELECT split_part(current_setting('server_version'), ' ', 1)")
    else:
        ((version,),) = await reader.fetch("SELECT sqlite_version()")
    return str(version)


def is_d1(reader: Reader) -> bool:
    """SQLite behind D1's API, whose answers are JSON."""
    return reader.address.startswith("d1:")


def readable(text: str) -> str:
    """Without the lone surrogates that stand for bytes of a path that are no text."""
    return text.encode("utf-8", "replace").decode()
