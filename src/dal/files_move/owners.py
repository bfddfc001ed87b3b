"""Whose the files of a directory are: one user for all, and a list of paths that belong to others.

The list is a CSV file without a head: a path below the directory, and a user's id or `clerk_id`. A path that ends in
`/` stands for all below it; the longest path that fits counts.
"""

from __future__ import annotations

import csv
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from dal.errors import InvalidInputError, NotFoundError


class Owners:
    """Gives a path its user's id."""

    def __init__(self, everybody: str | None, paths: Mapping[str, str]) -> None:
        self._everybody = everybody
        self._paths = paths

    def __call__(self, path: str) -> str | None:
        """The user's id, or None where nobody says."""
        if (owner := self._paths.get(path)) is not None:
            return owner
        while (end := path.rstrip("/").rfind("/")) >= 0:
            path = path[: end + 1]
            if (owner := self._paths.get(path)) is not None:
                return owner
        return self._everybody


async def read_owners(
    everybody: str | None, paths: Path | None, find: Callable[[str], Awaitable[str | None]]
) -> Owners:
    """The owners that a user's key and a CSV file name. `find` gives the id of the user with a key.

    Raises  NotFoundError: a key that no user has.  InvalidInputError: a line that is not two fields.
    """
    ids: dict[str, str] = {}

    async def id_of(key: str, where: str) -> str:
        if key not in ids:
            found = await find(key)
            if found is None:
                raise NotFoundError(f"{where}: no user {key[:40]!r}")
            ids[key] = found
        return ids[key]

    owner = None if everybody is None else await id_of(everybody, "user")
    mapped: dict[str, str] = {}
    for number, (path, key) in enumerate([] if paths is None else _lines(paths), 1):
        mapped[path.removeprefix("./").lstrip("/")] = await id_of(key, f"{paths}:{number}")
    return Owners(owner, mapped)


def _lines(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidInputError(f"{path}: cannot be read: {reason}") from error
    for number, line in enumerate(lines, 1):
        if len(line) != 2 or not all(field.strip() for field in line):
            raise InvalidInputError(f"{path}:{number}: a line is a path and a user, with a comma between")
    return [(line[0].strip(), line[1].strip()) for line in lines]
