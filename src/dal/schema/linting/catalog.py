"""What the files read so far have made: tables, their columns and foreign keys, checks that have been validated.

Names only; it is not a copy of a database. A rule that does not find a table here takes it for one that exists, with
rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from dal.schema.linting.acts import (
    Act,
    AlterTable,
    Change,
    Column,
    Constraint,
    Create,
    CreateIndex,
    CreateTable,
    Drop,
    ForeignKey,
    Insert,
)

_SERIAL: Final = frozenset({"SERIAL", "BIGSERIAL", "SMALLSERIAL", "SERIAL2", "SERIAL4", "SERIAL8"})


@dataclass(frozen=True, slots=True)
class Table:
    """types        of its columns, as `acts.Column.type`.
    foreign_keys  from it to others.
    checks        by name: the columns that a check proves, and whether the check was validated.
    """

    types: dict[str, tuple[str, ...]]
    foreign_keys: tuple[ForeignKey, ...] = ()
    checks: dict[str, tuple[tuple[str, ...], bool]] = field(default_factory=dict)
    partitioned: bool = False

    def proves(self, column: str) -> bool:
        """A validated check shows that it holds no NULL."""
        return any(valid and column in columns for columns, valid in self.checks.values())


@dataclass(slots=True)
class Work:
    """What one file has done so far, or a run of pending files where the tables in the database are known.

    created    tables and others that it made: nobody works with them yet.
    added      (table, column) that it added.
    not_valid  (table, constraint) that it added NOT VALID, and the kind of constraint.
    copied     tables that rows were taken from, and the tables that got them.
    renamed    tables by their new name, with the name they had.
    deferred   foreign keys are checked at the commit.
    unenforced  foreign keys were switched off by a statement of the file.
    """

    created: set[str] = field(default_factory=set)
    added: set[tuple[str, str]] = field(default_factory=set)
    not_valid: dict[tuple[str, str], str] = field(default_factory=dict)
    copied: dict[str, set[str]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    deferred: bool = False
    unenforced: bool = False


class Catalog:
    """Tables and indexes by name."""

    def __init__(self, tables: dict[str, Table] | None = None) -> None:
        self.tables: dict[str, Table] = tables if tables is not None else {}

    def copy(self) -> Catalog:
        return Catalog(dict(self.tables))

    def children(self, parent: str) -> list[tuple[str, ForeignKey]]:
        """Foreign keys of other tables to this one."""
        return [
            (name, key)
            for name, table in self.tables.items()
            if name != parent
            for key in table.foreign_keys
            if key.target == parent
        ]

    def apply(self, act: Act, work: Work) -> None:
        """Takes over what the act has made, changed and dropped."""
        match act:
            case CreateTable():
                self._create(act, work)
            case Create() | CreateIndex() if act.name:
                work.created.add(act.name)
            case AlterTable():
                for change in act.changes:
                    self._change(act.table, change, work)
            case Drop(kind="TABLE" | "FOREIGN TABLE"):
                for name in act.names:
                    self.tables.pop(name, None)
            case Insert():
                for source in act.reads:
                    work.copied.setdefault(source, set()).add(act.table)
            case _:
                pass

    def _create(self, act: CreateTable, work: Work) -> None:
        if act.name in self.tables and act.if_not_exists:
            return
        constraints = [*act.constraints, *(one for column in act.columns for one in column.constraints)]
        self.tables[act.name] = Table(
            types={column.name: column.type for column in act.columns},
            foreign_keys=_foreign_keys(constraints),
            checks={one.name or f"#{index}": (one.proves, True) for index, one in enumerate(constraints) if one.proves},
            partitioned=act.partitioned,
        )
        work.created.add(act.name)
        for source in act.reads:
            work.copied.setdefault(source, set()).add(act.name)

    def _change(self, name: str, change: Change, work: Work) -> None:
        if change.kind == "rename-table":
            self._rename(name, change.to, work)
            return
        if change.kind == "add-column":
            work.added.add((name, change.name))
        if change.kind == "add-constraint" and change.constraint is not None and change.constraint.not_valid:
            work.not_valid[(name, change.name)] = change.constraint.kind
        table = self.tables.get(name)
        if table is None:
            # A table that the set did not make: remembered for what the set adds to it.
            table = Table(types={})
            self.tables[name] = table
        self.tables[name] = _changed(table, change)

    def _rename(self, name: str, to: str, work: Work) -> None:
        table = self.tables.pop(name, None)
        if table is not None:
            self.tables[to] = table
        if name in work.created:
            work.created.discard(name)
            work.created.add(to)
        else:
            work.renamed[to] = work.renamed.pop(name, name)
        # Both engines let foreign keys follow the table.
        for other, one in self.tables.items():
            if any(key.target == name for key in one.foreign_keys):
                keys = tuple(replace(key, target=to) if key.target == name else key for key in one.foreign_keys)
                self.tables[other] = replace(one, foreign_keys=keys)


def is_serial(column: Column) -> bool:
    """PostgreSQL's shorthand for a column that a sequence fills."""
    return bool(column.type) and column.type[0] in _SERIAL


def _foreign_keys(constraints: Iterable[Constraint]) -> tuple[ForeignKey, ...]:
    return tuple(one.foreign for one in constraints if one.foreign is not None)


def _changed(table: Table, change: Change) -> Table:
    types = dict(table.types)
    checks = dict(table.checks)
    keys = table.foreign_keys
    if change.kind == "add-column" and change.column is not None:
        types[change.name] = change.column.type
        keys += _foreign_keys(change.column.constraints)
    elif change.kind == "drop-column":
        types.pop(change.name, None)
        keys = tuple(key for key in keys if change.name not in key.columns)
    elif change.kind == "change-type":
        types[change.name] = change.type
    elif change.kind == "rename-column":
        types[change.to] = types.pop(change.name, ())
    elif change.kind == "add-constraint" and change.constraint is not None:
        keys += _foreign_keys([change.constraint])
        if change.constraint.proves:
            checks[change.name or f"#{len(checks)}"] = (change.constraint.proves, not change.constraint.not_valid)
    elif change.kind == "drop-constraint":
        checks.pop(change.name, None)
    elif change.kind == "validate" and change.name in checks:
        checks[change.name] = (checks[change.name][0], True)
    return replace(table, types=types, foreign_keys=keys, checks=checks)
