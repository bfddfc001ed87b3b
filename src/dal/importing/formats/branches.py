"""A tree of messages as conversations, each message in one of them.

The branch that was open when the export was made is the conversation. Every other branch becomes a chat of its own,
which holds what comes behind the fork and says where it belongs; nothing is lost and nothing is there twice. A branch
is named by its first message, so that it keeps its name when it grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Branch(NamedTuple):
    """Messages that follow each other, by id.

    behind  the message it forks from; None for the conversation itself, and where the message before is not there.
    """

    messages: list[str]
    behind: str | None


def branches(parents: Mapping[str, str | None], current: str | None) -> list[Branch]:
    """The current branch, and then the others in the order of their ends.

    parents  the parent of each message, in the order of the export; a parent that is not there counts as none.
    current  the last message of the current branch; the last end where there is none.

    Messages that are each other's parents, in a damaged export, are cut where the circle closes.
    """
    inner = set(parents.values())
    ends = [message for message in parents if message not in inner]
    if current is None or current not in parents:
        current = ends[-1] if ends else next(reversed(list(parents)), None)
    taken: set[str] = set()
    found: list[Branch] = []
    for end in [*([] if current is None else [current]), *ends, *reversed(list(parents))]:
        path: list[str] = []
        at: str | None = end
        while at is not None and at in parents and at not in taken:
            taken.add(at)
            path.append(at)
            at = parents[at]
        if path:
            found.append(Branch(path[::-1], at if at in parents else None))
    return found
