"""What a statement does, as far as a rule asks: one small class for each kind.

Names are as the engine compares them (`Cursor.name`). `place` is the character of the statement that a finding points
at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from dal.schema.linting.words import Token


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """on_delete  `CASCADE`, `SET NULL`, `SET DEFAULT`, `RESTRICT`, `NO ACTION`; empty where the clause is not there."""

    columns: tuple[str, ...]
    target: str
    on_delete: str
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """Of a table or a column.

    using_index  it takes over an index that is there.
    not_valid    rows that are there are not checked.
    proves       columns that a CHECK shows to be NOT NULL.
    """

    kind: Literal["primary", "unique", "exclude", "check", "foreign"]
    name: str = ""
    using_index: bool = False
    not_valid: bool = False
    foreign: ForeignKey | None = None
    proves: tuple[str, ...] = ()
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column's definition. `type` is in upper case, `("VARCHAR", "(", "20", ")")`. `default` None: it says none."""

    name: str
    type: tuple[str, ...]
    not_null: bool
    default: tuple[Token, ...] | None
    constraints: tuple[Constraint, ...]
    generated: Literal["", "stored", "virtual", "identity"]
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTable:
    """reads  tables that an AS SELECT takes its rows from.  module  of a virtual table."""

    name: str
    temporary: bool
    if_not_exists: bool
    columns: tuple[Column, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    reads: frozenset[str] = frozenset()
    module: str = ""
    partitioned: bool = False
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateIndex:
    """only  on a partitioned table alone, which takes no time.  name  empty where PostgreSQL is to choose it."""

    name: str
    table: str
    concurrently: bool
    if_not_exists: bool
    only: bool
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Anything else that is created: `kind` is VIEW, TRIGGER, TYPE, FUNCTION, SCHEMA …"""

    kind: str
    name: str
    temporary: bool
    if_not_exists: bool
    or_replace: bool
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    kind: str
    names: tuple[str, ...]
    if_exists: bool
    concurrently: bool
    cascade: bool
    place: int


ChangeKind: TypeAlias = Literal[
    "add-column",
    "drop-column",
    "change-type",
    "set-not-null",
    "add-constraint",
    "drop-constraint",
    "validate",
    "rename-table",
    "rename-column",
    "rename-constraint",
    "rewrite",
    "detach",
    "other",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One action of an ALTER TABLE. `name` is the column or constraint, `to` its new name or what a rewrite sets."""

    kind: ChangeKind
    name: str = ""
    to: str = ""
    guarded: bool = False  # IF EXISTS, IF NOT EXISTS
    concurrently: bool = False
    column: Column | None = None
    constraint: Constraint | None = None
    type: tuple[str, ...] = ()
    using: bool = False
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterTable:
    table: str
    changes: tuple[Change, ...]
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterOther:
    """ALTER VIEW, TYPE, INDEX …: `what` is RENAME, RENAME VALUE, ADD VALUE or empty."""

    kind: str
    name: str
    what: str
    guarded: bool
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Insert:
    """guarded  ON CONFLICT, OR IGNORE or WHERE NOT EXISTS: it may run twice.  replaces  REPLACE: it deletes rows."""

    table: str
    reads: frozenset[str]
    guarded: bool
    replaces: bool
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    table: str
    every_row: bool
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """counts  a column is set from its own value, so that a second run gives another one."""

    table: str
    columns: tuple[str, ...]
    every_row: bool
    counts: bool
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    tables: tuple[str, ...]
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pragma:
    """value  as written in upper case; empty where it only asks."""

    name: str
    value: str
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Any other statement, by its first words. `concurrently`: it says so."""

    words: tuple[str, ...]
    concurrently: bool = False
    place: int


Act: TypeAlias = (
    CreateTable
    | CreateIndex
    | Create
    | Drop
    | AlterTable
    | AlterOther
    | Insert
    | Delete
    | Update
    | Truncate
    | Pragma
    | Plain
)
