"""What a checkpoint appends to files, planned before it does: the one step that is undone before it is repeated.

The durable plan names every file that is appended to, with its size before and, of messages, the chat that it must
still be the file of.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import orjson

from dal.backends.file import faults
from dal.backends.file.errors import damaged_file
from dal.backends.file.journal import settled_position
from dal.backends.file.layout import Layout, replace, sync_tree
from dal.backends.file.linerows import owner
from dal.backends.file.lines import LineFile

_NAME: Final = "checkpoint.json"


class Planned(NamedTuple):
    """A file that is appended to: its name in the store, its size, and the id of the chat whose messages it holds."""

    path: str
    size: int
    owner: str | None


def write(layout: Layout, target: int, files: Sequence[Planned]) -> None:
    """Makes the plan durable. It counts until everything before the position `target` is settled."""
    found = {"target": target, "files": [planned._asdict() for planned in files]}
    replace(layout.journal / _NAME, orjson.dumps(found))
    faults.reach("checkpoint.planned")


def is_unfinished(layout: Layout) -> bool:
    """Whether a checkpoint has begun to append and has not ended, under the checkpoint lock."""
    return _unfinished(layout) is not None


def undo(layout: Layout) -> None:
    """Takes back what an unfinished checkpoint has appended, under its lock. CorruptDataError: the plan is damaged."""
    files = _unfinished(layout)
    for planned in files or ():
        path = layout.absolute(planned.path)
        with suppress(FileNotFoundError), LineFile(path) as file:
            is_same = planned.owner is None or owner(file) == planned.owner
            if is_same and file.size > planned.size:
                os.truncate(path, planned.size)
                faults.reach("undo.truncated")
    if files is not None:
        sync_tree(layout.root, [layout.absolute(planned.path) for planned in files])
    (layout.journal / _NAME).unlink(missing_ok=True)


def _unfinished(layout: Layout) -> list[Planned] | None:
    path = layout.journal / _NAME
    try:
        found = orjson.loads(path.read_bytes())
        if int(found["target"]) <= settled_position(layout):
            return None
        return [Planned(str(entry["path"]), int(entry["size"]), entry["owner"]) for entry in found["files"]]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise damaged_file(layout, path) from error
