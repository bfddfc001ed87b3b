"""A new migration file and its way back, with the next free number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from dal.errors import InvalidInputError
from dal.schema.connection import EngineName
from dal.schema.files import read_set


def new_migration(
    directory: Path,
    engine: EngineName,
    title: str,
    *,
    transaction: bool = True,
    phase: Literal["expand", "contract"] | None = None,
) -> list[Path]:
    """Writes `NNNN_title.sql` and `rollback/NNNN_title.sql`, and gives their paths. Nothing is ever overwritten.

    Raises InvalidInputError: a title without a letter or digit of ASCII.
    """
    words = re.findall(r"[a-z0-9]+", title.lower())
    if not words:
        raise InvalidInputError(f"{title!r}: name the migration with words of a to z and digits, as 'add chat labels'")
    directory.mkdir(parents=True, exist_ok=True)
    found = read_set(directory, engine)
    number = max((migration.number for migration in found.migrations), default=0) + 1
    name = f"{number:04}_{'_'.join(words)}.sql"
    header = [] if transaction else ["-- dal:no-transaction"]
    if phase is not None:
        header.append(f"-- dal:phase={phase}")
    way_back = header[:1] if not transaction else []
    paths = [found.directory / name, found.directory / "rollback" / name]
    texts = (
        [*header, "-- Purpose: ", "-- Locks:   ", ""],
        [*way_back, f"-- Takes {name} back.", ""],
    )
    paths[1].parent.mkdir(exist_ok=True)
    for path, lines in zip(paths, texts, strict=True):
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write("\n".join(lines))
    return paths
