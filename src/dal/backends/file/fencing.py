"""A fence against programs that write the store's files themselves: their directory is put away.

A unit's directory changes places with a regular file, in one step where the system can (renameat2), so a program that
looks for `chats/…` finds that `chats` is no directory; even root cannot write through it. The library finds the data
under `fenced/`. What a program has open it can still write to: that is looked for after the fence (foreign.py). All of
it happens under the checkpoint lock; readers who look at a place just left look at the other one.

A process that dies on the way leaves each directory in one place or the other. The gates say where it belongs, and
whoever opens the store next brings it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from dal.backends.file import faults
from dal.backends.file.layout import DATA, Layout, make_directory, sync_directory, write_new
from dal.backends.file.registry import Registry
from dal.exchange import exchange

_NOTICE: Final = b"""This directory was put away by a live move of dal, which keeps it under fenced/. Other programs
must not write to it: the store that takes its writes now is another one.
"""


def put_away(layout: Layout, name: str) -> None:
    """Takes a directory of documents out of others' reach. Nothing happens where it is away."""
    layout.look()
    place, away = layout.root / name, layout.fenced / name
    if layout.is_away(name):
        if not place.exists():  # died between two renames
            write_new(place, _NOTICE)
        return
    make_directory(place)
    make_directory(layout.fenced)
    write_new(away, _NOTICE)
    faults.reach("fence.prepared")
    exchange(place, away, _NOTICE)
    faults.reach("fence.exchanged")
    sync_directory(layout.root)
    sync_directory(layout.fenced)
    layout.look()


def put_back(layout: Layout, name: str) -> None:
    """Brings a directory back to where it belongs. Nothing happens where it is there."""
    layout.look()
    place, away = layout.root / name, layout.fenced / name
    if layout.is_away(name):
        exchange(place, away, _NOTICE)
        faults.reach("fence.returned")
        sync_directory(layout.root)
        sync_directory(layout.fenced)
        layout.look()
    away.unlink(missing_ok=True)
    with suppress(OSError):
        layout.fenced.rmdir()


def complete(layout: Layout, registry: Registry) -> None:
    """Brings every directory to where its unit's gate wants it; only a primary's is in others' reach.

    Some renames at most, and most often one look.
    """
    for name, is_away in _wanted(layout, registry):
        if is_away:
            put_away(layout, name)
        else:
            put_back(layout, name)


def is_complete(layout: Layout, registry: Registry) -> bool:
    """Whether every directory is where its unit's gate wants it, and nothing is left of how it came there."""
    for name, is_away in _wanted(layout, registry):
        other = layout.root / name if is_away else layout.fenced / name
        if layout.is_away(name) != is_away or other.exists() != is_away:
            return False
    return True


def _wanted(layout: Layout, registry: Registry) -> Iterator[tuple[str, bool]]:
    """Directories that are to be put away, or to be where they belong."""
    if not registry.gates and not layout.fenced.exists():
        return
    for name in DATA:
        gate = registry.gates.get(name)
        yield name, gate is not None and gate.role != "primary"
