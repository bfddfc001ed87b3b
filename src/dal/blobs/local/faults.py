"""Named points in the writing of a blob where a test may let the process die or a system call fail.

Outside tests `hook` is None and a point costs one comparison.
"""

from __future__ import annotations

from collections.abc import Callable

#: Called with the name of each point that is reached.
hook: Callable[[str], None] | None = None


def reach(point: str) -> None:
    """Says that the writing has come to this point."""
    if hook is not None:
        hook(point)
