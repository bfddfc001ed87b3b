"""What a database holds, object by object and by name: one form for every engine, to be compared and reported.

A snapshot has the objects of one schema: tables with their columns, keys and constraints, indexes, views, triggers,
types, functions, sequences and policies. It leaves out what nobody declared: the engine's own tables, those that a
virtual table keeps its data in, the members of extensions, this tool's ledger, and what a live move keeps. Rows,
privileges, comments and tablespaces are no part of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Literal, TypeVar

from dal.schema.connection import EngineName, Reader
from dal.schema.tool_tables import MOVE_OBJECTS

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnInfo:
    """One column.

    type       as the engine names it, upper case on SQLite, where it is the word that was declared.
    default    its expression; None where there is none.
    generated  `STORED (…)`, `VIRTUAL (…)`, `ALWAYS AS IDENTITY`, `BY DEFAULT AS IDENTITY`; empty for a plain column.
    collation  empty where it is the engine's or the type's own.
    """

    type: str
    nullable: bool = True
    default: str | None = None
    generated: str = ""
    collation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class UniqueInfo:
    """A UNIQUE constraint. `name` is empty where the engine made it up; `detail` is what else was said of it."""

    columns: tuple[str, ...]
    name: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ForeignKeyInfo:
    """A foreign key. `name` is empty where the engine made it up; `match` and `deferrable` are empty where
    they are the default."""

    columns: tuple[str, ...]
    table: str
    to_columns: tuple[str, ...]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"
    match: str = ""
    deferrable: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    """One table.

    columns  in their order.
    checks   `CHECK (…)`, with `CONSTRAINT name` before those that were given one.
    options  whatever else was said of it, sorted: WITHOUT ROWID, STRICT, PARTITION BY …, UNLOGGED, EXCLUDE ….
    virtual  module and arguments of a virtual table, which has no columns here; else empty.
    """

    columns: dict[str, ColumnInfo]
    primary_key: tuple[str, ...] = ()
    uniques: tuple[UniqueInfo, ...] = ()
    checks: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKeyInfo, ...] = ()
    options: tuple[str, ...] = ()
    virtual: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """An index that was declared by itself; those behind primary keys and UNIQUE constraints stand with their table.

    parts  columns and expressions in order, each with its COLLATE, operator class and DESC where they are not the
           default.
    where  the condition of a partial index.
    valid  False: PostgreSQL does not use it, because a CONCURRENTLY build was cut off.
    """

    table: str
    parts: tuple[str, ...]
    unique: bool = False
    where: str = ""
    method: str = "btree"
    include: tuple[str, ...] = ()
    options: str = ""
    valid: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewInfo:
    """A view: its query."""

    definition: str
    materialized: bool = False
    options: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerInfo:
    """A trigger: everything behind its name."""

    table: str
    definition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The objects of one database, by name.

    triggers     by name; on PostgreSQL, where two tables may have triggers of one name, by `name on table`.
    enums        their labels in order.
    types        domains, composite and range types, as one line each.
    functions    by name and types of arguments, procedures and aggregates too.
    sequences    those that belong to no column.
    policies     of row security, and rewrite rules, by `name on table`.
    unvalidated  constraints that rows already there were not checked against (NOT VALID), as sentences.
    """

    engine: EngineName
    tables: dict[str, TableInfo]
    indexes: dict[str, IndexInfo]
    views: dict[str, ViewInfo] = field(default_factory=dict)
    triggers: dict[str, TriggerInfo] = field(default_factory=dict)
    enums: dict[str, tuple[str, ...]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    sequences: dict[str, str] = field(default_factory=dict)
    policies: dict[str, str] = field(default_factory=dict)
    unvalidated: tuple[str, ...] = ()

    @property
    def invalid_indexes(self) -> tuple[str, ...]:
        """Names of indexes that PostgreSQL does not use."""
        return tuple(name for name, index in self.indexes.items() if not index.valid)

    @property
    def empty(self) -> bool:
        """Nothing was ever declared here, or everything was taken back."""
        return not any(self.counts().values())

    def counts(self) -> dict[str, int]:
        """How many objects of each kind there are, columns, constraints and foreign keys too; for reports, not to judge
        a database by."""
        tables = self.tables.values()
        return {
            "tables": len(self.tables),
            "columns": sum(len(table.columns) for table in tables),
            "foreign keys": sum(len(table.foreign_keys) for table in tables),
            "unique constraints": sum(len(table.uniques) for table in tables),
            "checks": sum(len(table.checks) for table in tables),
            "indexes": len(self.indexes),
            "views": len(self.views),
            "triggers": len(self.triggers),
            "enums": len(self.enums),
            "types": len(self.types),
            "functions": len(self.functions),
            "sequences": len(self.sequences),
            "policies": len(self.policies),
        }

    def to_dict(self) -> dict[str, object]:
        """The same as plain dictionaries and lists, for a report."""
        return asdict(self)


#: What a difference can concern.
Kind = Literal[
    "table", "column", "constraint", "index", "view", "trigger", "enum", "type", "function", "sequence", "policy"
]


async def snapshot(reader: Reader) -> Snapshot:
    """What the database holds now (PostgreSQL: its current schema).

    Raises  SchemaError: PostgreSQL's search path leads to no schema. Others of the taxonomy as `Reader.fetch` does.
    Cost    four reads on SQLite and D1, five on PostgreSQL, however many objects there are. They are no transaction: a
            migration that runs meanwhile may be seen by half.
    """
    # Each engine's inspection imports the objects above.
    from dal.schema.inspection import postgresql, sqlite

    found = await (sqlite.snapshot(reader) if reader.engine == "sqlite" else postgresql.snapshot(reader))
    return replace(
        found,
        tables=_declared(found.tables),
        indexes=_declared(found.indexes),
        triggers=_declared(found.triggers),
        functions=_declared(found.functions),
        sequences=_declared(found.sequences),
    )


def _declared(found: dict[str, _T]) -> dict[str, _T]:
    """Without what belongs to a live move."""
    return {name: value for name, value in found.items() if not MOVE_OBJECTS.match(name)}
