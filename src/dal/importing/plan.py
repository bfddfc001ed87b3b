"""What a batch of records means for what is stored now: the operations that are missing, and what each record becomes.

Planning only reads, but for users, who are created on the way (dal.importing.users). Planned again after a crash, a
lost answer or a conflict, a batch holds just what is not there yet; that is what makes an import repeatable. Nothing
stored is ever changed, except that a chat gets messages at its end.
"""

from __future__ import annotations

from typing import NamedTuple

from dal.ops import Op


class Plan(NamedTuple):
    """The operations of a batch, parents before children, and the rows of each kind among them.

    unchanged  records of which every row is there already.
    conflicts  records (by line) that the store holds with another content, and what is different.
    """

    ops: list[Op]
    unchanged: int
    conflicts: dict[int, str]
    chats: int = 0
    grown: int = 0
    messages: int = 0
    memory_items: int = 0
