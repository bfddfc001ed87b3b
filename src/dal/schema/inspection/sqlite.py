"""What a SQLite or D1 database holds: pragmas for what they tell, the stored SQL for the rest.

Every pragma is read as a table-valued function joined to `sqlite_master`, so that a hundred tables cost as many reads
as one. Only functions are used that D1 allows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from dal.schema.connection import Reader
from dal.schema.inspection.create_table import TableText, table_text
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
from dal.schema.inspection.sql_text import group, items, named, normal, text_of, tokens
from dal.schema.ledger import LEDGER_TABLES
from dal.schema.statements import Token

#: Tables that a virtual table of the module keeps its data in: `<name>_<suffix>`. PRAGMA table_list would tell, but D1
#: does not allow it.
_SHADOWS: Final = {
    "fts5": ("data", "idx", "content", "docsize", "config"),
    "fts4": ("content", "segments", "segdir", "docsize", "stat"),
    "fts3": ("content", "segments", "segdir", "docsize", "stat"),
    "rtree": ("node", "parent", "rowid"),
    "rtree_i32": ("node", "parent", "rowid"),
    "geopoly": ("node", "parent", "rowid"),
}

_OBJECTS: Final = """
SELECT type, name, tbl_name, sql FROM sqlite_master
WHERE sql IS NOT NULL AND substr(lower(name), 1, 7) <> 'sqlite_' AND substr(name, 1, 4) <> '_cf_'
ORDER BY name
"""
#: Plain tables only: a virtual one whose module is not there cannot be opened.
_TABLES: Final = """m.type = 'table' AND substr(lower(m.name), 1, 7) <> 'sqlite_'
    AND substr(m.name, 1, 4) <> '_cf_' AND substr(upper(m.sql), 1, 14) <> 'CREATE VIRTUAL'"""
_COLUMNS: Final = f"""
SELECT m.name, c.name, c.type, c."notnull", c.dflt_value, c.pk
FROM sqlite_master AS m CROSS JOIN pragma_table_xinfo(m.name) AS c
WHERE {_TABLES}
ORDER BY m.name, c.cid
"""  # noqa: S608  # nothing but constants, here and below
_INDEXES: Final = f"""
SELECT m.name, i.name, i."unique", i.origin, x.name, x."desc", x.coll
FROM sqlite_master AS m CROSS JOIN pragma_index_list(m.name) AS i CROSS JOIN pragma_index_xinfo(i.name) AS x
WHERE x.key = 1 AND {_TABLES}
ORDER BY m.name, i.seq, x.seqno
"""  # noqa: S608
_FOREIGN_KEYS: Final = f"""
SELECT m.name, f.id, f."table", f."from", f."to", f.on_delete, f.on_update
FROM sqlite_master AS m CROSS JOIN pragma_foreign_key_list(m.name) AS f
WHERE {_TABLES}
ORDER BY m.name, f.id DESC, f.seq
"""  # noqa: S608

_Rows = Sequence[tuple[object, ...]]
#: Of one index: column (None: an expression), descending, collation.
_Parts = list[tuple[str | None, bool, str]]


async def snapshot(reader: Reader) -> Snapshot:
    """What the database holds now. See `objects.snapshot`."""
    objects = [(str(kind), str(name), str(table), str(sql)) for kind, name, table, sql in await reader.fetch(_OBJECTS)]
    hidden = LEDGER_TABLES | _shadows(objects)
    kept = [entry for entry in objects if entry[2] not in hidden]
    columns = _by_table(await reader.fetch(_COLUMNS))
    indexes = _by_table(await reader.fetch(_INDEXES))
    foreign_keys = _by_table(await reader.fetch(_FOREIGN_KEYS))
    tables: dict[str, TableInfo] = {}
    found_indexes: dict[str, IndexInfo] = {}
    for kind, name, _, sql in kept:
        if kind != "table":
            continue
        if _is_virtual(sql):
            tables[name] = TableInfo(columns={}, virtual=_behind(sql, "USING"))
            continue
        text = table_text(sql)
        parts = _index_parts(indexes[name])
        tables[name] = _table(columns[name], foreign_keys[name], parts, text)
    for kind, name, table, sql in kept:
        if kind == "index":
            found_indexes[name] = _index(name, table, sql, _index_parts(indexes[table]))
    return Snapshot(
        engine="sqlite",
        tables={name: _with_parents(table, tables) for name, table in tables.items()},
        indexes=found_indexes,
        views={name: ViewInfo(definition=_view(sql)) for kind, name, _, sql in kept if kind == "view"},
        triggers={
            name: TriggerInfo(table=table, definition=_trigger(sql))
            for kind, name, table, sql in kept
            if kind == "trigger"
        },
    )


def _shadows(objects: Sequence[tuple[str, str, str, str]]) -> frozenset[str]:
    """Their tables are written with the quotes of strings by full-text modules; somebody's own `docs_content`, which an
    index may be told to read, is not."""
    hidden: set[str] = set()
    texts = {name: sql for kind, name, _, sql in objects if kind == "table"}
    for name, sql in texts.items():
        module = tokens(_behind(sql, "USING"), "sqlite")[:1] if _is_virtual(sql) else []
        for suffix in _SHADOWS.get(module[0].text.lower(), ()) if module else ():
            shadow = f"{name}_{suffix}"
            if not module[0].text.lower().startswith("fts") or texts.get(shadow, "").startswith("CREATE TABLE '"):
                hidden.add(shadow)
    return frozenset(hidden)


def _is_virtual(sql: str) -> bool:
    return sql[:14].upper() == "CREATE VIRTUAL"


def _by_table(rows: _Rows) -> dict[str, _Rows]:
    found: dict[str, list[tuple[object, ...]]] = defaultdict(list)
    for table, *rest in rows:
        found[str(table)].append(tuple(rest))
    return defaultdict(list, found)


def _index_parts(rows: _Rows) -> dict[tuple[str, str, bool], _Parts]:
    """By name, origin (`c` created, `u` UNIQUE, `pk`) and uniqueness."""
    found: dict[tuple[str, str, bool], _Parts] = defaultdict(list)
    for name, unique, origin, column, descends, collation in rows:
        part = (None if column is None else str(column), bool(descends), str(collation or ""))
        found[str(name), str(origin), bool(unique)].append(part)
    return found


def _table(
    columns: _Rows, foreign_keys: _Rows, indexes: dict[tuple[str, str, bool], _Parts], text: TableText
) -> TableInfo:
    keys = sorted((int(str(pk)), str(name)) for name, _, _, _, pk in columns if pk)
    primary = tuple(name for _, name in keys)
    uniques = []
    for (_, origin, _), parts in indexes.items():
        names = tuple(str(column) for column, _, _ in parts)
        if origin == "pk":
            primary = tuple(f"{column} DESC" if descends else str(column) for column, descends, _ in parts)
        elif origin == "u":
            detail = text.conflicts.get(names, "")
            uniques.append(UniqueInfo(columns=names, detail=detail))
    of_key = text.conflicts.get(tuple(name for _, name in keys))
    return TableInfo(
        columns={
            str(name): ColumnInfo(
                type=normal(str(kind or "")).upper(),
                nullable=not notnull,
                default=None if default is None else normal(str(default)),
                generated=text.generated.get(str(name), ""),
                collation=text.collations.get(str(name), ""),
            )
            for name, kind, notnull, default, _ in columns
        },
        primary_key=primary,
        uniques=tuple(sorted(uniques)),
        checks=tuple(sorted(text.checks)),
        foreign_keys=_foreign_keys(foreign_keys, text.deferrables),
        options=tuple(sorted([*text.options, *([f"PRIMARY KEY {of_key}"] if of_key else [])])),
    )


def _foreign_keys(rows: _Rows, deferrables: Sequence[str]) -> tuple[ForeignKeyInfo, ...]:
    """The rows come in the order of declaration, because SQLite numbers the last one 0."""
    keys: dict[int, list[tuple[object, ...]]] = defaultdict(list)
    for row in rows:
        keys[int(str(row[0]))].append(row)
    fitting = deferrables if len(deferrables) == len(keys) else [""] * len(keys)
    found = []
    for parts, deferrable in zip(keys.values(), fitting, strict=True):
        _, table, _, _, on_delete, on_update = parts[0]
        found.append(
            ForeignKeyInfo(
                columns=tuple(str(part[2]) for part in parts),
                table=str(table),
                to_columns=tuple(str(part[3]) for part in parts if part[3] is not None),
                on_delete=str(on_delete),
                on_update=str(on_update),
                deferrable=deferrable,
            )
        )
    return tuple(found)


def _with_parents(table: TableInfo, tables: dict[str, TableInfo]) -> TableInfo:
    """`REFERENCES users` means its primary key: said in full, and the keys sorted."""
    full = []
    for key in table.foreign_keys:
        parent = tables.get(key.table)
        to_columns = key.to_columns
        if not to_columns and parent is not None:
            to_columns = tuple(column.removesuffix(" DESC") for column in parent.primary_key)
        full.append(
            ForeignKeyInfo(
                columns=key.columns,
                table=key.table,
                to_columns=to_columns,
                on_delete=key.on_delete,
                on_update=key.on_update,
                deferrable=key.deferrable,
            )
        )
    return TableInfo(
        columns=table.columns,
        primary_key=table.primary_key,
        uniques=table.uniques,
        checks=table.checks,
        foreign_keys=tuple(sorted(full)),
        options=table.options,
        virtual=table.virtual,
    )


def _index(name: str, table: str, sql: str, parts: dict[tuple[str, str, bool], _Parts]) -> IndexInfo:
    words = tokens(sql, "sqlite")
    start = _place(words, "ON") + 2
    inner, end = group(words, start)
    unique, columns = next(((key[2], found) for key, found in parts.items() if key[0] == name), (False, []))
    return IndexInfo(
        table=table,
        parts=tuple(_part(written, *part) for written, part in zip(items(inner), columns, strict=False)),
        unique=unique,
        where=text_of(words[end + 1 :]),
    )


def _part(written: Sequence[Token], column: str | None, descends: bool, collation: str) -> str:
    """A column by its name; an expression as it is written, without what the other arguments say."""
    if column is not None:
        text = named(column)
    else:
        expression = list(written)
        if expression[-1].says("ASC", "DESC"):
            expression.pop()
        if len(expression) > 2 and expression[-2].says("COLLATE"):
            del expression[-2:]
        text = text_of(expression)
    if collation and collation.upper() != "BINARY":
        text += f" COLLATE {collation.upper()}"
    return f"{text} DESC" if descends else text


def _view(sql: str) -> str:
    """The query. Column names given before it are part of it."""
    words = tokens(sql, "sqlite")
    place = _behind_name(words, _place(words, "VIEW") + 1)
    if place < len(words) and words[place].says("AS"):
        place += 1
    return text_of(words[place:])


def _trigger(sql: str) -> str:
    words = tokens(sql, "sqlite")
    return text_of(words[_behind_name(words, _place(words, "TRIGGER") + 1) :])


def _behind_name(words: Sequence[Token], place: int) -> int:
    if place < len(words) and words[place].says("IF"):
        place += 3  # IF NOT EXISTS
    place += 1
    return place + 2 if place < len(words) and words[place].says(".") else place


def _behind(sql: str, word: str) -> str:
    words = tokens(sql, "sqlite")
    return text_of(words[_place(words, word) + 1 :])


def _place(words: Sequence[Token], word: str) -> int:
    return next((place for place, token in enumerate(words) if token.says(word)), len(words))
