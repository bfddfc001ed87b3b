"""What a declared table is made of: kinds of columns, indexes, parents. The declarations are in `dal.tables`."""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import Final, Literal, NamedTuple


class Kind(Enum):
    """What a column holds, as the waist sees it."""

    ID = "id"  # UUID as lower-case text with hyphens
    TEXT = "text"
    INT = "int"  # 32 bits
    BIGINT = "bigint"  # 64 bits
    BOOL = "bool"
    TIME = "time"  # aware datetime in UTC, microseconds
    JSON = "json"  # any JSON value; reads back equal
    IP = "ip"  # an IPv4 or IPv6 address as text


class Column(NamedTuple):
    name: str
    kind: Kind
    nullable: bool = False
    max_chars: int | None = None
    min_chars: int = 0


class Index(NamedTuple):
    """`-column` descends. A unique index is how a unique key is kept."""

    name: str
    columns: tuple[str, ...]
    unique: bool = False


class Parent(NamedTuple):
    """A foreign key to the parent's `id`, and what a delete of the parent does to the rows here."""

    column: str
    table: str
    on_delete: Literal["cascade", "set null"]


class Table:
    """One declared table. `key` is always the column `id`; other unique keys come from the unique indexes."""

    def __init__(
        self,
        name: str,
        columns: tuple[Column, ...],
        *,
        indexes: tuple[Index, ...] = (),
        parents: tuple[Parent, ...] = (),
        owner: str | None = None,
        expires: str | None = None,
        search: str | None = None,
        search_order: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.columns = columns
        self.indexes = indexes
        self.parents = parents
        self.owner = owner  # column or column path that holds the owner's user id
        self.expires = expires  # column after which a row is invisible
        self.search = search  # column that Search looks into
        self.search_order = search_order
        self.key = "id"

    def __repr__(self) -> str:
        return f"Table({self.name!r})"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in declared order: the order of a row without an explicit `columns`."""
        return tuple(c.name for c in self.columns)

    @cached_property
    def by_name(self) -> dict[str, Column]:
        return {c.name: c for c in self.columns}

    @cached_property
    def unique_keys(self) -> tuple[tuple[str, ...], ...]:
        """Every declared unique key as a tuple of columns, the primary key first."""
        return ((self.key,), *(i.columns for i in self.indexes if i.unique))

    @cached_property
    def parent_of(self) -> dict[str, Parent]:
        return {p.column: p for p in self.parents}


def id_column(name: str = "id", *, nullable: bool = False) -> Column:
    return Column(name, Kind.ID, nullable)


def text_column(name: str, max_chars: int | None = None, *, nullable: bool = False, min_chars: int = 0) -> Column:
    return Column(name, Kind.TEXT, nullable, max_chars, min_chars)


def time_column(name: str, *, nullable: bool = False) -> Column:
    return Column(name, Kind.TIME, nullable)


def json_column(name: str) -> Column:
    return Column(name, Kind.JSON)


VERSION: Final = Column("version", Kind.BIGINT)
