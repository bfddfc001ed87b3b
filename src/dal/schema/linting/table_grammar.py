"""What stands in CREATE TABLE and ALTER TABLE: columns, constraints, changes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from dal.schema.connection import EngineName
from dal.schema.linting.acts import Change, Column, Constraint, CreateTable, ForeignKey
from dal.schema.linting.words import Cursor, Token, one_of, outside, parts

#: Words that end a column's type and begin a clause of it.
_CLAUSES: Final = one_of(
    "CONSTRAINT NOT NULL DEFAULT PRIMARY UNIQUE CHECK REFERENCES GENERATED COLLATE AS DEFERRABLE INITIALLY "
    "STORAGE COMPRESSION ON AUTOINCREMENT USING NO"
)
_TABLE_CONSTRAINTS: Final = frozenset({"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "EXCLUDE"})
_REWRITES: Final = (("LOGGED",), ("UNLOGGED",), ("TABLESPACE",), ("ACCESS", "METHOD"))
_CREATE_OPTIONS: Final = frozenset({"TABLE", "TEMP", "TEMPORARY", "UNLOGGED", "GLOBAL", "LOCAL", "FOREIGN", "VIRTUAL"})


def create_table(cursor: Cursor) -> CreateTable:
    """A CREATE TABLE of any kind, read from behind CREATE."""
    place = cursor.next.place
    options: set[str] = set()
    while cursor.at_any(_CREATE_OPTIONS) and "TABLE" not in options:
        options.add(cursor.step().text)
    if_not_exists = cursor.take("IF", "NOT", "EXISTS")
    name = cursor.name()
    temporary = bool(options & {"TEMP", "TEMPORARY"}) or name.startswith("temp.")
    columns: list[Column] = []
    constraints: list[Constraint] = []
    module = ""
    if "VIRTUAL" in options:
        cursor.take("USING")
        module = cursor.name()
    elif cursor.at("("):
        for element in parts(cursor.group()):
            inner = Cursor(element, cursor.engine)
            if inner.at_any(_TABLE_CONSTRAINTS):
                constraints.append(table_constraint(inner))
            elif not inner.at("LIKE"):
                columns.append(column(inner))
    rest = cursor.rest()
    reads = (
        read_tables(rest, cursor.engine)
        if any(token.kind == "word" and token.text == "AS" for token in outside(rest))
        else frozenset()
    )
    return CreateTable(
        name=name,
        temporary=temporary,
        if_not_exists=if_not_exists,
        columns=tuple(columns),
        constraints=tuple(constraints),
        reads=reads,
        module=module,
        partitioned=any(one.text == "PARTITION" and two.text == "BY" for one, two in pairwise(rest)),
        place=place,
    )


def column(cursor: Cursor) -> Column:
    """A column's definition, from its name to its end."""
    place = cursor.next.place
    name = cursor.name()
    kind: list[str] = []
    while cursor and not cursor.at_any(_CLAUSES):
        kind += [token.text for token in cursor.part()]
    not_null = False
    default: tuple[Token, ...] | None = None
    constraints: list[Constraint] = []
    generated: str = ""
    label = ""
    while cursor:
        at = cursor.next.place
        if cursor.take("CONSTRAINT"):
            label = cursor.name()
        elif cursor.take("NOT", "NULL"):
            not_null = True
        elif cursor.take("DEFAULT"):
            default = tuple(_expression(cursor))
        elif cursor.take("PRIMARY", "KEY"):
            constraints.append(Constraint(kind="primary", name=label, place=at))
        elif cursor.take("UNIQUE"):
            constraints.append(Constraint(kind="unique", name=label, place=at))
        elif cursor.take("CHECK"):
            constraints.append(Constraint(kind="check", name=label, proves=_proves(cursor.group(), cursor), place=at))
        elif cursor.take("REFERENCES"):
            foreign = _references(cursor, (name,), at)
            constraints.append(Constraint(kind="foreign", name=label, foreign=foreign, place=at))
        elif cursor.take("GENERATED"):
            cursor.take("ALWAYS")
            cursor.take("BY", "DEFAULT")
        elif cursor.take("AS", "IDENTITY"):
            generated = "identity"
        elif cursor.take("AS"):
            cursor.group()
            generated = "stored" if cursor.take("STORED") else "virtual"
            if generated == "virtual" and cursor.engine == "postgresql" and not cursor.take("VIRTUAL"):
                generated = "stored"
        else:
            cursor.part()
    return Column(
        name=name,
        type=tuple(kind),
        not_null=not_null,
        default=default,
        constraints=tuple(constraints),
        generated=generated,  # type: ignore[arg-type]  # one of its four words
        place=place,
    )


def table_constraint(cursor: Cursor) -> Constraint:
    """A constraint that stands for itself."""
    place = cursor.next.place
    name = cursor.name() if cursor.take("CONSTRAINT") else ""
    foreign: ForeignKey | None = None
    proves: tuple[str, ...] = ()
    kind: str = "check"
    if cursor.take("PRIMARY", "KEY"):
        kind = "primary"
    elif cursor.take("UNIQUE"):
        kind = "unique"
    elif cursor.take("EXCLUDE"):
        kind = "exclude"
    elif cursor.take("FOREIGN", "KEY"):
        kind = "foreign"
        columns = tuple(_names(cursor.group(), cursor))
        at = cursor.next.place
        cursor.take("REFERENCES")
        foreign = _references(cursor, columns, at)
    elif cursor.take("CHECK"):
        proves = _proves(cursor.group(), cursor)
    elif cursor.take("NOT", "NULL"):  # PostgreSQL 18 names it
        proves = (cursor.name(),)
    rest = outside(cursor.rest())
    pairs = {(one.text, two.text) for one, two in pairwise(rest) if one.kind == two.kind == "word"}
    return Constraint(
        kind=kind,  # type: ignore[arg-type]  # one of its five words
        name=name,
        using_index=("USING", "INDEX") in pairs,
        not_valid=("NOT", "VALID") in pairs,
        foreign=foreign,
        proves=proves,
        place=place,
    )


def change(cursor: Cursor) -> Change:
    """One action of an ALTER TABLE."""
    place = cursor.next.place
    if cursor.take("ADD"):
        return _addition(cursor, place)
    if cursor.take("DROP"):
        is_constraint = cursor.take("CONSTRAINT")
        if not is_constraint:
            cursor.take("COLUMN")
        guarded = cursor.take("IF", "EXISTS")
        kind = "drop-constraint" if is_constraint else "drop-column"
        return Change(kind=kind, name=cursor.name(), guarded=guarded, place=place)  # type: ignore[arg-type]
    if cursor.take("ALTER"):
        return _alteration(cursor, place)
    if cursor.take("VALIDATE", "CONSTRAINT"):
        return Change(kind="validate", name=cursor.name(), place=place)
    if cursor.take("RENAME", "TO"):
        return Change(kind="rename-table", to=cursor.name(), place=place)
    if cursor.take("RENAME", "CONSTRAINT"):
        return Change(kind="rename-constraint", name=cursor.name(), place=place)
    if cursor.take("RENAME"):
        cursor.take("COLUMN")
        name = cursor.name()
        cursor.take("TO")
        return Change(kind="rename-column", name=name, to=cursor.name(), place=place)
    if cursor.take("SET"):
        for words in _REWRITES:
            if cursor.at(*words):
                return Change(kind="rewrite", to=" ".join(words), place=place)
    if cursor.take("DETACH", "PARTITION"):
        name = cursor.name()
        return Change(kind="detach", name=name, concurrently=cursor.at("CONCURRENTLY"), place=place)
    return Change(kind="other", place=place)


def _addition(cursor: Cursor, place: int) -> Change:
    if cursor.at_any(_TABLE_CONSTRAINTS):
        found = table_constraint(cursor)
        return Change(kind="add-constraint", name=found.name, constraint=found, place=place)
    cursor.take("COLUMN")
    guarded = cursor.take("IF", "NOT", "EXISTS")
    added = column(cursor)
    return Change(kind="add-column", name=added.name, guarded=guarded, column=added, place=place)


def _alteration(cursor: Cursor, place: int) -> Change:
    if cursor.at("CONSTRAINT"):
        return Change(kind="other", place=place)
    cursor.take("COLUMN")
    name = cursor.name()
    if cursor.take("SET", "NOT", "NULL"):
        return Change(kind="set-not-null", name=name, place=place)
    if cursor.take("TYPE") or cursor.take("SET", "DATA", "TYPE"):
        kind: list[str] = []
        while cursor and not cursor.at("COLLATE") and not cursor.at("USING"):
            kind += [token.text for token in cursor.part()]
        using = any(token.text in ("USING", "COLLATE") for token in outside(cursor.rest()))
        return Change(kind="change-type", name=name, type=tuple(kind), using=using, place=place)
    return Change(kind="other", name=name, place=place)


def read_tables(tokens: Sequence[Token], engine: EngineName) -> frozenset[str]:
    """The tables that a SELECT names behind FROM and JOIN."""
    cursor = Cursor(tokens, engine)
    found: set[str] = set()
    while cursor:
        if cursor.take("FROM") or cursor.take("JOIN"):
            cursor.take("ONLY")
            if cursor.next.kind in ("word", "name"):
                found.add(cursor.name())
        else:
            cursor.step()
    return frozenset(found)


def _expression(cursor: Cursor) -> list[Token]:
    """The value of a DEFAULT: up to the next clause, and at least one token, which may be NULL."""
    found = cursor.part()
    while cursor and not cursor.at_any(_CLAUSES):
        found += cursor.part()
    return found


def _references(cursor: Cursor, columns: tuple[str, ...], place: int) -> ForeignKey:
    target = cursor.name()
    cursor.group()
    on_delete = ""
    while cursor:
        if cursor.take("MATCH"):
            cursor.step()
        elif cursor.take("ON", "DELETE"):
            on_delete = _action(cursor)
        elif cursor.take("ON", "UPDATE"):
            _action(cursor)
        else:
            break
    return ForeignKey(columns=columns, target=target, on_delete=on_delete, place=place)


def _action(cursor: Cursor) -> str:
    first = cursor.step().text
    if first not in ("SET", "NO"):
        return first
    action = f"{first} {cursor.step().text}"
    cursor.group()  # SET NULL (column)
    return action


def _names(tokens: Sequence[Token], cursor: Cursor) -> list[str]:
    inner = Cursor(tokens, cursor.engine)
    return inner.names() if inner else []


def _proves(tokens: Sequence[Token], cursor: Cursor) -> tuple[str, ...]:
    """Columns that a CHECK shows to be NOT NULL: it is `a IS NOT NULL`, alone or joined to others by AND."""
    terms: list[list[Token]] = [[]]
    for token in tokens:
        if token.kind == "word" and token.text == "OR":
            return ()
        if token.kind == "word" and token.text == "AND":
            terms.append([])
        elif not (token.kind == "sign" and token.text in "()"):
            terms[-1].append(token)
    shown = [term for term in terms if [token.text for token in term[1:]] == ["IS", "NOT", "NULL"]]
    return tuple(Cursor(term, cursor.engine).name() for term in shown)
