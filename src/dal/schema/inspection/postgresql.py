"""What a PostgreSQL database holds: the catalogue of the current schema, in five reads.

Definitions come from the server's own functions (`pg_get_indexdef` and its kin), which write equal things equally and
name a schema only where the search path does not lead there, so that a scratch schema and the true one can be compared.
Objects of extensions are left out.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from dal.errors import SchemaError
from dal.schema.connection import Reader
from dal.schema.inspection.catalogue import COLUMNS, CONSTRAINTS, INDEXES, OTHERS, RELATIONS
from dal.schema.inspection.objects import (
    ColumnInfo,
    ForeignKeyInfo,
    IndexInfo,
    Snapshot,
    TableInfo,
    TriggerInfo,
    UniqueInfo,
    ViewInfo,
)
from dal.schema.inspection.sql_text import group, items, text_of, tokens, unquoted
from dal.schema.ledger import LEDGER_TABLES
from dal.schema.statements import Token

#: Names that PostgreSQL makes up end so; after a rebuild they still carry the table's former name.
_MADE_UP: Final = re.compile(r"_(?:pkey|key|fkey|check|excl|not_null)\d*$")
_FUNCTION: Final = re.compile(r'(CREATE OR REPLACE \w+ )(?:"(?:[^"]|"")*"|[\w$]+)\.')
_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_$]*")
_IDENTITY: Final = {"a": "ALWAYS AS IDENTITY", "d": "BY DEFAULT AS IDENTITY"}
_GENERATED: Final = {"s": "STORED", "v": "VIRTUAL"}

_Rows = Sequence[tuple[object, ...]]


async def snapshot(reader: Reader) -> Snapshot:
    """What the current schema holds now. See `objects.snapshot`."""
    relations = _texts(await reader.fetch(RELATIONS))
    columns = _texts(await reader.fetch(COLUMNS))
    # What somebody drops while this reads has no definition any more.
    constraints = [row for row in _texts(await reader.fetch(CONSTRAINTS)) if row[3]]
    indexes = [row for row in _texts(await reader.fetch(INDEXES)) if row[2]]
    others = _texts(await reader.fetch(OTHERS))

    found: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for kind, name, table, definition in others:
        if table not in LEDGER_TABLES:
            found[kind][name] = (table, definition)
    if not any(found["schema"]):
        raise SchemaError(
            f"{reader.address}: no schema of its search_path exists; nothing can be looked at or made there",
            operation="schema.inspect",
        )
    return Snapshot(
        engine="postgresql",
        tables=_tables(relations, columns, constraints),
        indexes={
            name: _index(table, definition, unique == "true", valid == "true")
            for name, table, definition, unique, valid in indexes
            if table not in LEDGER_TABLES
        },
        views={
            name: ViewInfo(definition=definition.rstrip("; \n"), materialized=kind == "m", options=options)
            for name, kind, options, _, definition in relations
            if kind in "vm"
        },
        triggers={
            name: TriggerInfo(table=table, definition=definition)
            for name, (table, definition) in _by_short_name(found["trigger"]).items()
        },
        enums={name: tuple(json.loads(labels)) for name, (_, labels) in found["enum"].items()},
        types={name: text for name, (_, text) in found["type"].items()} | _composites(columns),
        functions={name: _FUNCTION.sub(r"\1", text, count=1) for name, (_, text) in found["function"].items()},
        sequences={name: text for name, (_, text) in found["sequence"].items()},
        policies={name: text for name, (_, text) in found["policy"].items()},
        unvalidated=tuple(
            f"table {table}, constraint {name}: {definition}"
            for table, _, name, definition, validated in constraints
            if validated != "true" and table not in LEDGER_TABLES
        ),
    )


def _texts(rows: _Rows) -> list[tuple[str, ...]]:
    return [tuple("" if value is None else str(value) for value in row) for row in rows]


def _tables(
    relations: Sequence[tuple[str, ...]], columns: Sequence[tuple[str, ...]], constraints: Sequence[tuple[str, ...]]
) -> dict[str, TableInfo]:
    of_table: dict[str, dict[str, ColumnInfo]] = defaultdict(dict)
    for table, kind, name, type_, nullable, default, identity, generated, collation, sequence in columns:
        if kind == "c":
            continue
        if sequence and default == f"nextval('{sequence}'::regclass)":
            # What SERIAL makes. The sequence keeps the table's former name through a rebuild.
            default = "nextval(its own sequence)"
        of_table[table][name] = ColumnInfo(
            type=type_,
            nullable=nullable == "true",
            default=None if generated or not default else default,
            generated=f"{_GENERATED[generated]} ({default})" if generated else _IDENTITY.get(identity, ""),
            collation=collation,
        )
    keys: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for table, kind, name, definition, _ in constraints:
        keys[table].append((kind, "" if _MADE_UP.search(name) else name, definition.removesuffix(" NOT VALID")))
    return {
        name: _table(of_table[name], keys[name], options)
        for name, kind, _, options, _ in relations
        if kind in "rpf" and name not in LEDGER_TABLES
    }


def _table(columns: dict[str, ColumnInfo], keys: Sequence[tuple[str, str, str]], options: str) -> TableInfo:
    primary: tuple[str, ...] = ()
    uniques, checks, foreign_keys = [], [], []
    others: list[str] = [*json.loads(options)]
    for kind, name, definition in keys:
        named = f"CONSTRAINT {_quoted(name)} " if name else ""
        if kind == "p":
            primary, detail = _key(definition)
            if name or detail:
                others.append(f"{named}PRIMARY KEY {detail}".rstrip())
        elif kind == "u":
            names, detail = _key(definition)
            uniques.append(UniqueInfo(columns=names, name=name, detail=detail))
        elif kind == "c":
            checks.append(named + definition)
        elif kind == "f":
            foreign_keys.append(_foreign_key(name, definition))
        elif kind == "x":
            others.append(named + definition)
    return TableInfo(
        columns=columns,
        primary_key=primary,
        uniques=tuple(sorted(uniques)),
        checks=tuple(sorted(checks)),
        foreign_keys=tuple(sorted(foreign_keys)),
        options=tuple(sorted(others)),
    )


def _key(definition: str) -> tuple[tuple[str, ...], str]:
    """`UNIQUE NULLS NOT DISTINCT (a, b) INCLUDE (c) DEFERRABLE`: its columns, and what is left."""
    words = tokens(definition, "postgresql")
    start = next(place for place, token in enumerate(words) if token.says("("))
    inner, end = group(words, start)
    left = [*words[:start], *words[end:]]
    while left and left[0].says("PRIMARY", "KEY", "UNIQUE"):
        left.pop(0)
    return _names(inner), text_of(left)


def _foreign_key(name: str, definition: str) -> ForeignKeyInfo:
    """`FOREIGN KEY (a) REFERENCES t(b) MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL (a) DEFERRABLE …`."""
    words = tokens(definition, "postgresql")
    inner, place = group(words, 2)
    start = next(i for i in range(place, len(words)) if words[i].says("("))
    target, end = group(words, start)
    actions = {"DELETE": "NO ACTION", "UPDATE": "NO ACTION"}
    rest: list[Token] = []
    place_after = end
    while place_after < len(words):
        following = words[place_after + 1] if place_after + 1 < len(words) else None
        if words[place_after].says("ON") and following is not None and following.says("DELETE", "UPDATE"):
            stop = next(
                (i for i in range(place_after + 2, len(words)) if words[i].says("ON", "DEFERRABLE", "NOT")), len(words)
            )
            actions[following.text] = text_of(words[place_after + 2 : stop])
            place_after = stop
        else:
            rest.append(words[place_after])
            place_after += 1
    return ForeignKeyInfo(
        columns=_names(inner),
        table=".".join(unquoted(token.text) for token in words[place + 1 : start] if not token.says(".")),
        to_columns=_names(target),
        on_delete=actions["DELETE"],
        on_update=actions["UPDATE"],
        match=text_of(rest[:2]) if rest and rest[0].says("MATCH") else "",
        deferrable=text_of(rest[2:] if rest and rest[0].says("MATCH") else rest),
        name=name,
    )


def _index(table: str, definition: str, unique: bool, valid: bool) -> IndexInfo:
    """`CREATE UNIQUE INDEX i ON ONLY t USING gin (a, lower(b) DESC) INCLUDE (c) WITH (…) WHERE (…)`."""
    words = tokens(definition, "postgresql")
    using = next(place for place, token in enumerate(words) if token.says("USING"))
    inner, place = group(words, using + 2)
    include: tuple[str, ...] = ()
    if place < len(words) and words[place].says("INCLUDE"):
        included, place = group(words, place + 1)
        include = _names(included)
    where = next((i for i in range(place, len(words)) if words[i].says("WHERE")), len(words))
    return IndexInfo(
        table=table,
        parts=tuple(text_of(item) for item in items(inner)),
        unique=unique,
        where=text_of(words[where + 1 :]),
        method=words[using + 1].text,
        include=include,
        options=text_of(words[place:where]),
        valid=valid,
    )


def _names(inner: Sequence[Token]) -> tuple[str, ...]:
    return tuple(unquoted(item[0].text) for item in items(inner))


def _quoted(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _composites(columns: Sequence[tuple[str, ...]]) -> dict[str, str]:
    found: dict[str, list[str]] = defaultdict(list)
    for table, kind, name, type_, *_ in columns:
        if kind == "c":
            found[table].append(f"{_quoted(name)} {type_}")
    return {name: f"({', '.join(attributes)})" for name, attributes in found.items()}


def _by_short_name(triggers: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Keyed `name on table` by the catalogue; by its name alone where only one table has a trigger of that name."""
    names: dict[str, list[str]] = defaultdict(list)
    for key, (table, _) in triggers.items():
        names[key.removesuffix(f" on {table}")].append(key)
    return {(name if len(keys) == 1 else key): triggers[key] for name, keys in names.items() for key in keys}
