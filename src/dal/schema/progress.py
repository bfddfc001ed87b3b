"""What a run tells while it goes on, and what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of a run.

    name        file name of the migration, `rollback/…` for a way back; empty while another runner is waited for.
    statement   the one that is running or waiting, from 1; 0 where the file goes as one batch.
    of          statements of the file.
    elapsed_ms  since the file, or the waiting, began.
    phase       `waiting`: for a lock; `detail` says who holds it, or what the engine said.
    """

    name: str
    statement: int
    of: int
    elapsed_ms: int
    phase: Literal["waiting", "running", "done"]
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """One migration that was applied or taken back, how long that took, and how many statements it ran."""

    name: str
    duration_ms: int
    statements: int = 0


OnProgress: TypeAlias = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """Told to nobody."""
