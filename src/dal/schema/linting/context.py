"""What a rule is given beside the act it looks at, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from dal.schema.connection import EngineName, Place
from dal.schema.linting.acts import Act, AlterTable
from dal.schema.linting.catalog import Catalog, Work


class Hit(NamedTuple):
    """place   the character of the statement it points at.
    advice  where this case has a better one than the rule's own.
    """

    rule: str
    place: int
    message: str
    advice: str = ""


@dataclass(slots=True)
class Context:
    """The file, the database it runs on, and everything that was done before the act.

    acts   of the whole file, in order; `index` is that of the present one.
    """

    place: Place
    engine: EngineName
    rollback: bool
    in_transaction: bool
    foreign_keys: bool
    catalog: Catalog
    work: Work
    acts: Sequence[Act]
    index: int = 0

    def exists(self, table: str) -> bool:
        """The table was there before: others work with it, and it has rows."""
        return table not in self.work.created

    def is_new(self, act: AlterTable, column: str) -> bool:
        """The file added the column itself."""
        return (act.table, column) in self.work.added or any(
            change.kind == "add-column" and change.name == column for change in act.changes
        )


Check: TypeAlias = Callable[[Act, Context], Iterator[Hit]]
