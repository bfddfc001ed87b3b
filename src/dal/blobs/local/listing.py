"""Keys in their order, of a directory that knows none: sorted in runs on the disk, and merged.

The order of 100,000s of keys costs one look through the directory and a few MB of memory, whatever their number.
"""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from itertools import islice

from dal.blobs.base import BlobInfo
from dal.blobs.local.files import TRAILER_BYTES, modified_at
from dal.blobs.local.tree import UNFINISHED, Tree
from dal.limits import BLOB_LIST_RUN_KEYS


def sorted_keys(tree: Tree, prefix: str, after: str) -> Generator[str, None, None]:
    """The keys that begin so and come after that one, in order. Waits for the disk. Close it where it is left early."""
    wanted = (key for key in tree.blob_keys() if key > after and key.startswith(prefix))
    with ExitStack() as stack:
        runs: list[Iterator[str]] = []
        while run := sorted(islice(wanted, BLOB_LIST_RUN_KEYS)):
            if len(run) < BLOB_LIST_RUN_KEYS:
                runs.append(iter(run))
                break
            # No file of the run ever has a name: nothing is left of it, however this process ends.
            file = stack.enter_context(tempfile.TemporaryFile("w+", dir=tree.path / UNFINISHED))
            file.writelines(f"{key}\n" for key in run)
            file.seek(0)
            runs.append(line[:-1] for line in file)
        yield from heapq.merge(*runs)


def describe(tree: Tree, keys: Iterator[str], count: int) -> list[BlobInfo]:
    """What a directory knows of the next so many blobs, those that went meanwhile left out. Empty at the end."""
    found: list[BlobInfo] = []
    for key in islice(keys, count):
        try:
            with tree.place(key) as (directory, name):
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        found.append(BlobInfo(key, max(status.st_size - TRAILER_BYTES, 0), modified_at(status)))
    return found
