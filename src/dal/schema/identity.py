"""Which database this is: its name, and what serves it. Backups and environments ask, so that none is mistaken."""

from __future__ import annotations

from pathlib import PurePath

from dal.schema.connection import Reader


async def database_name(reader: Reader) -> str:
    """PostgreSQL's name of the database; the stem of a SQLite file's name; the last part of a D1 address."""
    if reader.engine == "postgresql":
        ((name,),) = await reader.fetch("SELECT current_database()::text")
        return str(name)
    address = reader.address.partition(":")[2] or reader.address
    last = readable(PurePath(address).name)
    return last if is_d1(reader) else PurePath(last).stem


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
