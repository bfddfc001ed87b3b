"""A live move's state on disk, in `move/`: gates and counters as a payload of the journal's, and a file of entries.

A checkpoint writes what the journal has changed since the one before. That may be of a later moment than what it
settles, for repeating the journal's records over it comes to the same. Which file of entries counts is said by the
record with which capture began; one that no record names any more was left by a move that has ended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from dal.backends.file.codec import decode_changes, encode_changes
from dal.backends.file.layout import Layout
from dal.backends.file.registry import Capturing, Gated, MoveChange, Registry
from dal.backends.file.registry_file import LOCK, SUFFIX, Known, RegistryFile, damaged

_STATE: Final = "state.json"


class Part(NamedTuple):
    """What a checkpoint writes of the registry, as it was when the work was taken up."""

    gates: Sequence[MoveChange]
    entries: Mapping[str, Sequence[tuple[str, Known]]]
    file: RegistryFile | None

    def encode(self) -> bytes:
        """Everything but the entries."""
        return encode_changes(self.gates) + b"\n"

    def put(self) -> None:
        """Writes the entries."""
        if self.file is not None:
            self.file.put(self.entries)


class RegistryFiles:
    """The files of entries that a process has open, by their names."""

    def __init__(self, layout: Layout, timeout_s: float) -> None:
        self._layout = layout
        self._timeout_s = timeout_s
        self._open: dict[str, RegistryFile] = {}

    def file(self, name: str) -> RegistryFile:
        found = self._open.get(name)
        if found is None:
            found = self._open[name] = RegistryFile(self._layout.move, name, self._timeout_s)
        return found

    def close(self) -> None:
        for found in self._open.values():
            found.close()


def part_of(registry: Registry, changed: Mapping[str, Mapping[str, None]]) -> Part:
    """What is to be written: the entries that changed."""
    entries = {
        name: [(row_id, known) for row_id in ids if (known := registry.recent[name].get(row_id)) is not None]
        for name, ids in changed.items()
    }
    return Part(registry.gated(), entries, registry.file)


def state_path(layout: Layout) -> Path:
    return layout.move / _STATE


def load(layout: Layout, files: RegistryFiles) -> Registry:
    """The registry as of the last checkpoint, or later. CorruptDataError: its state is damaged."""
    registry, path = Registry(files.file), state_path(layout)
    with suppress(FileNotFoundError):
        try:
            changes = decode_changes(path.read_bytes())
        except ValueError as error:
            raise damaged(path) from error
        for change in changes:
            if not isinstance(change, Gated | Capturing):
                raise damaged(path)
            registry.apply(change)
    if registry.file is not None:
        registry.file.verify()
    return registry


def retire(layout: Layout, part: Part) -> None:
    """Removes the entries of moves that have ended; and everything, where nothing is left of the last one."""
    with suppress(FileNotFoundError):
        for entry in list(os.scandir(layout.move)):
            name, suffix, _ = entry.name.partition(SUFFIX)
            if suffix and (part.file is None or name != part.file.name):
                Path(entry.path).unlink(missing_ok=True)
    if not part.gates:
        for name in (_STATE, LOCK):
            (layout.move / name).unlink(missing_ok=True)
        with suppress(OSError):
            layout.move.rmdir()
