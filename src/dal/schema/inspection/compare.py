"""Two snapshots side by side: what is missing, what nobody expected, and what is different, in sentences.

Objects are matched by name. Constraints, whose names the engine often makes up, are matched by what they say. Case of
words in expressions means nothing on SQLite, as for SQLite itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final, Literal, TypeVar

from dal.schema.inspection.objects import (
    ColumnInfo,
    ForeignKeyInfo,
    IndexInfo,
    Kind,
    Snapshot,
    TableInfo,
    TriggerInfo,
    UniqueInfo,
    ViewInfo,
)
from dal.schema.inspection.sql_text import folded

_T = TypeVar("_T")
What = Literal["missing", "unexpected", "different"]

#: Of a long text, how much is shown from shortly before the place where it parts from the other.
_SHOWN: Final = 80
_BEFORE: Final = 20
_LINE_END: Final = re.compile(r"\s*\n\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing in which a database is not what was expected.

    kind    what it concerns; `column` and `constraint` stand in `table`.
    name    its name; of a constraint what it says.
    detail  `type TEXT, expected VARCHAR(255)`; for what is missing or unexpected just that word.
    table   the table of a column, constraint, index or trigger; else empty.
    """

    kind: Kind
    name: str
    what: What
    detail: str
    table: str = ""

    def __str__(self) -> str:
        if self.kind == "column":
            return f"table {self.table}, column {self.name}: {self.detail}"
        if self.kind == "constraint":
            return f"table {self.table}, {self.name}: {self.detail}"
        where = f" on {self.table}" if self.table and not self.name.endswith(f" on {self.table}") else ""
        return f"{self.kind} {self.name}{where}: {self.detail}"


def differences(expected: Snapshot, found: Snapshot, *, column_order: bool = False) -> list[Difference]:
    """In what `found` is not `expected`: tables first, then indexes and the rest, each by name. Empty: they are equal.

    column_order  the order of a table's columns counts too. It does not by itself: a column that was taken away and
                  brought back stands last, and PostgreSQL has no means to move it.
    """
    same = _same_folded if expected.engine == "sqlite" else _same_exactly
    return list(_Comparison(same, column_order).run(expected, found))


class _Comparison:
    """same  two texts of SQL say the same."""

    def __init__(self, same: Callable[[str, str], bool], column_order: bool) -> None:
        self._same = same
        self._column_order = column_order

    def run(self, expected: Snapshot, found: Snapshot) -> Iterator[Difference]:
        yield from self._by_name("table", expected.tables, found.tables, self._table)
        yield from self._by_name("index", expected.indexes, found.indexes, self._index, lambda index: index.table)
        yield from self._by_name("view", expected.views, found.views, self._view)
        yield from self._by_name(
            "trigger", expected.triggers, found.triggers, self._trigger, lambda trigger: trigger.table
        )
        yield from self._by_name("enum", expected.enums, found.enums, _enum)
        yield from self._by_name("type", expected.types, found.types, self._text)
        yield from self._by_name("function", expected.functions, found.functions, self._text)
        yield from self._by_name("sequence", expected.sequences, found.sequences, self._text)
        yield from self._by_name("policy", expected.policies, found.policies, self._text)

    def _by_name(
        self,
        kind: Kind,
        expected: Mapping[str, _T],
        found: Mapping[str, _T],
        details: Callable[[_T, _T], Iterator[str | Difference]],
        table_of: Callable[[_T], str] = lambda _: "",
    ) -> Iterator[Difference]:
        for name in sorted({*expected, *found}):
            if name not in found:
                table = table_of(expected[name])
                yield Difference(kind=kind, name=name, what="missing", detail="missing", table=table)
                continue
            table = table_of(found[name])
            if name not in expected:
                yield Difference(kind=kind, name=name, what="unexpected", detail="unexpected", table=table)
                continue
            for detail in details(expected[name], found[name]):
                if isinstance(detail, str):
                    yield Difference(kind=kind, name=name, what="different", detail=detail, table=table)
                else:
                    yield Difference(
                        kind=detail.kind, name=detail.name, what=detail.what, detail=detail.detail, table=name
                    )

    def _table(self, expected: TableInfo, found: TableInfo) -> Iterator[str | Difference]:
        if not self._same(expected.virtual, found.virtual):
            yield f"{_module(found)}, expected {_module(expected)}"
        yield from self._by_name("column", expected.columns, found.columns, self._column)
        if self._column_order and set(expected.columns) == set(found.columns):
            yield from _unlike("columns in the order", list(expected.columns), list(found.columns))
        yield from _unlike("primary key", expected.primary_key, found.primary_key)
        yield from self._constraints([*map(_unique, expected.uniques)], [*map(_unique, found.uniques)])
        yield from self._constraints(expected.checks, found.checks)
        yield from _foreign_keys(expected.foreign_keys, found.foreign_keys)
        for option in self._left_over(expected.options, found.options):
            yield f"not {option}, as expected"
        for option in self._left_over(found.options, expected.options):
            yield f"{option}, not expected"

    def _column(self, expected: ColumnInfo, found: ColumnInfo) -> Iterator[str]:
        if expected.type != found.type:
            yield f"type {found.type or 'none'}, expected {expected.type or 'none'}"
        if expected.nullable != found.nullable:
            yield "nullable, expected NOT NULL" if found.nullable else "NOT NULL, expected nullable"
        yield from self._attribute("default", expected.default, found.default)
        yield from self._attribute("generated", expected.generated or None, found.generated or None)
        yield from self._attribute("collation", expected.collation or None, found.collation or None)

    def _index(self, expected: IndexInfo, found: IndexInfo) -> Iterator[str]:
        if expected.table != found.table:
            yield f"on table {found.table}, expected {expected.table}"
        if expected.unique != found.unique:
            yield "unique, expected not unique" if found.unique else "not unique, expected unique"
        yield from self._attribute("method", expected.method, found.method)
        if not self._same(", ".join(expected.parts), ", ".join(found.parts)):
            yield from _unlike("parts", expected.parts, found.parts)
        yield from _unlike("included columns", expected.include, found.include)
        yield from self._attribute("condition", expected.where or None, found.where or None)
        yield from self._attribute("options", expected.options or None, found.options or None)
        if expected.valid and not found.valid:
            yield "invalid: PostgreSQL does not use it; drop it and build it again"

    def _view(self, expected: ViewInfo, found: ViewInfo) -> Iterator[str]:
        if expected.materialized != found.materialized:
            yield "materialized, expected a plain view" if found.materialized else "a plain view, expected materialized"
        yield from self._attribute("options", expected.options or None, found.options or None)
        yield from self._text(expected.definition, found.definition)

    def _trigger(self, expected: TriggerInfo, found: TriggerInfo) -> Iterator[str]:
        if expected.table != found.table:
            yield f"on table {found.table}, expected {expected.table}"
        yield from self._text(expected.definition, found.definition)

    def _text(self, expected: str, found: str) -> Iterator[str]:
        yield from self._attribute("defined as", expected, found)

    def _attribute(self, word: str, expected: str | None, found: str | None) -> Iterator[str]:
        if expected is None or found is None:
            if expected is not found:
                yield f"{word} {_shown(found or 'none')}, expected {_shown(expected or 'none')}"
        elif not self._same(expected, found):
            start = max(0, _common(expected, found) - _BEFORE)
            yield f"{word} {_shown(found, start)}, expected {_shown(expected, start)}"

    def _constraints(self, expected: Sequence[str], found: Sequence[str]) -> Iterator[Difference]:
        for constraint in self._left_over(expected, found):
            yield Difference(kind="constraint", name=constraint, what="missing", detail="missing")
        for constraint in self._left_over(found, expected):
            yield Difference(kind="constraint", name=constraint, what="unexpected", detail="unexpected")

    def _left_over(self, texts: Sequence[str], others: Sequence[str]) -> list[str]:
        """Those that no other one says, each as often as it is left."""
        rest = list(others)
        left = []
        for text in texts:
            twin = next((place for place, other in enumerate(rest) if self._same(text, other)), None)
            if twin is None:
                left.append(text)
            else:
                del rest[twin]
        return left


def _foreign_keys(expected: Sequence[ForeignKeyInfo], found: Sequence[ForeignKeyInfo]) -> Iterator[Difference]:
    """Two keys of the same columns to the same table are one that is different."""
    missing = list((Counter(expected) - Counter(found)).elements())
    unexpected = list((Counter(found) - Counter(expected)).elements())
    for key in missing:
        twin = next((k for k in unexpected if (k.columns, k.table) == (key.columns, key.table)), None)
        if twin is None:
            yield Difference(kind="constraint", name=_foreign_key(key), what="missing", detail="missing")
            continue
        unexpected.remove(twin)
        for detail in _key_details(key, twin):
            yield Difference(kind="constraint", name=_foreign_key(key), what="different", detail=detail)
    for key in unexpected:
        yield Difference(kind="constraint", name=_foreign_key(key), what="unexpected", detail="unexpected")


def _key_details(expected: ForeignKeyInfo, found: ForeignKeyInfo) -> Iterator[str]:
    yield from _unlike("columns there", expected.to_columns, found.to_columns)
    for word, wanted, is_there in (
        ("ON DELETE", expected.on_delete, found.on_delete),
        ("ON UPDATE", expected.on_update, found.on_update),
    ):
        if wanted != is_there:
            yield f"{word} {is_there}, expected {word} {wanted}"
    if expected.match != found.match:
        yield f"{found.match or 'MATCH SIMPLE'}, expected {expected.match or 'MATCH SIMPLE'}"
    if expected.deferrable != found.deferrable:
        yield f"{found.deferrable or 'not deferrable'}, expected {expected.deferrable or 'not deferrable'}"
    if expected.name != found.name:
        yield f"name {found.name or 'none'}, expected {expected.name or 'none'}"


def _enum(expected: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    yield from _unlike("labels", expected, found)


def _unlike(word: str, expected: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    if list(expected) != list(found):
        yield f"{word} {_listed(found)}, expected {_listed(expected)}"


def _unique(key: UniqueInfo) -> str:
    name = f"CONSTRAINT {key.name} " if key.name else ""
    return f"{name}UNIQUE ({', '.join(key.columns)}) {key.detail}".rstrip()


def _foreign_key(key: ForeignKeyInfo) -> str:
    return f"foreign key ({', '.join(key.columns)}) to {key.table} ({', '.join(key.to_columns)})"


def _module(table: TableInfo) -> str:
    return f"virtual, {table.virtual}" if table.virtual else "a plain table"


def _listed(names: Sequence[str]) -> str:
    return f"({', '.join(names)})" if names else "none"


def _shown(text: str, start: int = 0) -> str:
    shown = _LINE_END.sub(" ", text[start : start + _SHOWN])
    return f"{'…' if start else ''}{shown}{'…' if start + _SHOWN < len(text) else ''}"


def _common(one: str, other: str) -> int:
    """How many characters they begin with alike."""
    pairs = zip_longest(one, other)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), len(one))


def _same_exactly(one: str, other: str) -> bool:
    return one == other


def _same_folded(one: str, other: str) -> bool:
    return one == other or folded(one) == folded(other)
