"""A statement to what it does. It reads valid SQL as far as the rules need it, and takes the rest for `Plain`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from dal.errors import SchemaError
from dal.schema.connection import EngineName
from dal.schema.linting import table_grammar
from dal.schema.linting.acts import (
    Act,
    AlterOther,
    AlterTable,
    Create,
    CreateIndex,
    Delete,
    Drop,
    Insert,
    Plain,
    Pragma,
    Truncate,
    Update,
)
from dal.schema.linting.words import Cursor, Token, outside, parts, read

_CHANGES_ROWS: Final = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE"})
_BEGINNINGS: Final = _CHANGES_ROWS | {"CREATE", "ALTER", "DROP", "TRUNCATE", "WITH", "EXECUTE", "VACUUM", "CLUSTER"}
#: Words of a procedure that a statement may follow.
_BEFORE_STATEMENT: Final = frozenset({"BEGIN", "THEN", "ELSE", "LOOP"})
_ONE: Final = (["TRUE"], ["1"], ["1", "=", "1"])
_TWO_WORDS: Final = frozenset({"MATERIALIZED", "FOREIGN", "EVENT", "ACCESS"})


def acts(tokens: Sequence[Token], engine: EngineName) -> Iterator[Act]:
    """What the statement does: one act, and those of its data-changing sub-statements or of its DO block."""
    cursor = Cursor(tokens, engine)
    if cursor.at("WITH"):
        yield from _with(cursor)
    elif engine == "postgresql" and cursor.at("DO"):
        yield from _block(cursor)
    else:
        yield _act(cursor)


def _with(cursor: Cursor) -> Iterator[Act]:
    while cursor and not cursor.at_any(_CHANGES_ROWS | {"SELECT", "VALUES", "MERGE"}):
        if cursor.at("("):
            inner = Cursor(cursor.group(), cursor.engine)
            if inner.at_any(_CHANGES_ROWS):
                yield _act(inner)
        else:
            cursor.step()
    yield _act(cursor)


def _block(cursor: Cursor) -> Iterator[Act]:
    """The statements of a DO block, those of its branches too. The text that EXECUTE builds is not among them."""
    place = cursor.next.place
    yield Plain(words=("DO",), place=place)
    body = next((token for token in cursor.tokens if token.kind == "string"), None)
    if body is None:
        return
    try:
        tokens = read(body.text, cursor.engine, body.place + body.raw.index(body.text))
    except (SchemaError, ValueError):  # not a block that can be read from outside: its own string is quoted twice
        return
    statement: list[Token] = []
    for token in tokens:
        if token.kind == "sign" and token.text == ";":
            yield from _in_block(statement, cursor.engine)
            statement = []
        else:
            statement.append(token)


def _in_block(statement: list[Token], engine: EngineName) -> Iterator[Act]:
    start = 0
    for index, token in enumerate(statement):
        if token.kind == "word" and token.text in _BEFORE_STATEMENT:
            start = index + 1
    if start < len(statement) and statement[start].text in _BEGINNINGS and statement[start].kind == "word":
        yield from acts(statement[start:], engine)


def _act(cursor: Cursor) -> Act:
    place = cursor.next.place
    if cursor.take("CREATE"):
        return _create(cursor, place)
    if cursor.take("ALTER"):
        return _alter(cursor, place)
    if cursor.take("DROP"):
        return _drop(cursor, place)
    if cursor.at("INSERT") or cursor.at("REPLACE"):
        return _insert(cursor, place)
    if cursor.take("DELETE", "FROM"):
        cursor.take("ONLY")
        return Delete(table=cursor.name(), every_row=_every_row(cursor), place=place)
    if cursor.take("UPDATE"):
        return _update(cursor, place)
    if cursor.take("TRUNCATE"):
        cursor.take("TABLE")
        cursor.take("ONLY")
        return Truncate(tables=tuple(cursor.names()), place=place)
    if cursor.take("PRAGMA"):
        name = cursor.name()
        value = cursor.rest()[1:] if cursor.at("=") else cursor.group()
        return Pragma(name=name, value=" ".join(token.text.upper() for token in value), place=place)
    return _plain(cursor, place)


def _create(cursor: Cursor, place: int) -> Act:
    or_replace = cursor.take("OR", "REPLACE")
    ahead = [token.text for token in cursor.tokens[cursor.place : cursor.place + 4] if token.kind == "word"]
    if "TABLE" in ahead[: 3 if ahead[:1] in (["GLOBAL"], ["LOCAL"]) else 2]:
        return table_grammar.create_table(cursor)
    temporary = cursor.take("TEMP") or cursor.take("TEMPORARY")
    for word in ("RECURSIVE", "CONSTRAINT", "TRUSTED", "PROCEDURAL"):
        cursor.take(word)
    if cursor.at("INDEX") or cursor.at("UNIQUE", "INDEX"):
        return _create_index(cursor, place)
    kind = _kind(cursor)
    guarded = cursor.take("IF", "NOT", "EXISTS")
    name = cursor.name()
    return Create(
        kind=kind,
        name=name,
        temporary=temporary or name.startswith("temp."),
        if_not_exists=guarded,
        or_replace=or_replace,
        place=place,
    )


def _create_index(cursor: Cursor, place: int) -> CreateIndex:
    cursor.take("UNIQUE")
    cursor.take("INDEX")
    concurrently = cursor.take("CONCURRENTLY")
    guarded = cursor.take("IF", "NOT", "EXISTS")
    name = "" if cursor.at("ON") else cursor.name()
    cursor.take("ON")
    only = cursor.take("ONLY")
    return CreateIndex(
        name=name, table=cursor.name(), concurrently=concurrently, if_not_exists=guarded, only=only, place=place
    )


def _kind(cursor: Cursor) -> str:
    word = cursor.step().text
    return f"{word} {cursor.step().text}" if word in _TWO_WORDS else word


def _alter(cursor: Cursor, place: int) -> Act:
    kind = _kind(cursor)
    guarded = cursor.take("IF", "EXISTS")
    if kind in ("TABLE", "FOREIGN TABLE") and not cursor.at("ALL"):
        cursor.take("ONLY")
        table = cursor.name()
        cursor.take("*")
        changes = tuple(table_grammar.change(Cursor(part, cursor.engine)) for part in parts(cursor.rest()))
        return AlterTable(table=table, changes=changes, place=place)
    name = cursor.name()
    what = ""
    if cursor.take("RENAME", "VALUE"):
        what = "RENAME VALUE"
    elif cursor.take("RENAME"):
        what = "RENAME"
    elif cursor.take("ADD", "VALUE"):
        what = "ADD VALUE"
        guarded = cursor.take("IF", "NOT", "EXISTS")
    return AlterOther(kind=kind, name=name, what=what, guarded=guarded, place=place)


def _drop(cursor: Cursor, place: int) -> Drop:
    kind = _kind(cursor)
    concurrently = cursor.take("CONCURRENTLY")
    guarded = cursor.take("IF", "EXISTS")
    names = tuple(cursor.names())
    cascade = any(token.kind == "word" and token.text == "CASCADE" for token in outside(cursor.rest()))
    return Drop(kind=kind, names=names, if_exists=guarded, concurrently=concurrently, cascade=cascade, place=place)


def _insert(cursor: Cursor, place: int) -> Insert:
    replaces = cursor.take("REPLACE")
    guarded = replaces
    if cursor.take("INSERT") and cursor.take("OR"):
        choice = cursor.step().text
        replaces, guarded = choice == "REPLACE", choice in ("REPLACE", "IGNORE")
    cursor.take("INTO")
    table = cursor.name()
    rest = cursor.rest()
    words = [token.text if token.kind == "word" else "" for token in rest]
    follows = list(pairwise(words))
    guarded = guarded or ("ON", "CONFLICT") in follows or ("NOT", "EXISTS") in follows or "EXCEPT" in words
    reads = table_grammar.read_tables(rest, cursor.engine) if "FROM" in words else frozenset()
    return Insert(table=table, reads=reads, guarded=guarded, replaces=replaces, place=place)


def _update(cursor: Cursor, place: int) -> Update:
    if cursor.take("OR"):
        cursor.step()
    cursor.take("ONLY")
    table = cursor.name()
    while cursor and not cursor.take("SET"):
        cursor.step()
    columns: list[str] = []
    counts = False
    for assigned in parts(_clause(cursor)):
        part = Cursor(assigned, cursor.engine)
        names = _target(part)
        columns += names
        counts = counts or _from_itself(names, part)
    every_row = _every_row(cursor)
    return Update(table=table, columns=tuple(columns), every_row=every_row, counts=counts, place=place)


def _target(part: Cursor) -> list[str]:
    """The columns on the left of one assignment; steps over the sign between."""
    inner = Cursor(part.group(), part.engine) if part.at("(") else part
    names = inner.names() if inner else []
    while part and not part.take("="):
        part.step()
    return names


def _from_itself(names: list[str], part: Cursor) -> bool:
    """It adds to, takes from or appends to what the column holds."""
    value = part.rest()
    if not any(token.kind == "sign" and token.text in "+-*/|" for token in value):
        return False
    return any(Cursor([token], part.engine).name() in names for token in value if token.kind in ("word", "name"))


def _clause(cursor: Cursor) -> list[Token]:
    found: list[Token] = []
    while cursor and not cursor.at("WHERE") and not cursor.at("FROM") and not cursor.at("RETURNING"):
        found += cursor.part()
    return found


def _every_row(cursor: Cursor) -> bool:
    """No WHERE follows, or one that is always true."""
    while cursor and not cursor.at("WHERE"):
        cursor.part()
    if not cursor.take("WHERE"):
        return True
    condition: list[str] = []
    while cursor and not cursor.at("RETURNING"):
        condition += [token.text for token in cursor.part() if token.text not in ("(", ")")]
    return condition in _ONE


def _plain(cursor: Cursor, place: int) -> Plain:
    words = [token.text for token in outside(cursor.tokens[:12]) if token.kind == "word"]
    concurrently = "CONCURRENTLY" in words
    options = [token.text for token in cursor.tokens[:12] if token.kind == "word"]
    if words[:1] == ["VACUUM"] and "FULL" in options and "FULL" not in words:
        words.insert(1, "FULL")  # VACUUM (FULL, ANALYZE) t
    if words[:1] == ["REINDEX"] and "CONCURRENTLY" in options:
        concurrently = True
    return Plain(words=tuple(words), concurrently=concurrently, place=place)
