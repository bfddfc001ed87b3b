"""SQLite's stored CREATE TABLE, taken apart: what no pragma tells.

SQLite keeps the text of a definition; its pragmas leave out checks, collations, the expressions of generated columns,
conflict clauses, deferrable keys and AUTOINCREMENT. This finds them by the keywords that begin them, in the order the
text has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dal.schema.inspection.sql_text import group, items, named, text_of, tokens, unquoted
from dal.schema.statements import Token

_NOTHING: Final = Token("sign", 0, "")
_TABLE_CONSTRAINTS: Final = ("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN")


@dataclass(slots=True)
class TableText:
    """What the text says.

    checks       as `CHECK (…)`, the named with `CONSTRAINT name` before.
    collations   by column, upper case.
    generated    by column: `STORED (…)` or `VIRTUAL (…)`.
    deferrables  of each foreign key in order, empty where it is immediate.
    conflicts    by columns of a key: `ON CONFLICT REPLACE`. Of NOT NULL and CHECK they stand in `options`.
    options      WITHOUT ROWID, STRICT, AUTOINCREMENT and the conflict clauses of columns.
    """

    checks: list[str] = field(default_factory=list)
    collations: dict[str, str] = field(default_factory=dict)
    generated: dict[str, str] = field(default_factory=dict)
    deferrables: list[str] = field(default_factory=list)
    conflicts: dict[tuple[str, ...], str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)


def table_text(sql: str) -> TableText:
    """Takes a CREATE TABLE statement apart. One made by AS SELECT is stored by SQLite as if it had been written out."""
    found = TableText()
    words = tokens(sql, "sqlite")
    start = next((place for place, token in enumerate(words) if token.says("(")), len(words))
    body, end = group(words, start)
    for item in items(body):
        if item[0].says(*_TABLE_CONSTRAINTS):
            _clauses(found, "", item)
        else:
            _clauses(found, unquoted(item[0].text) if item[0].kind == "string" else item[0].text, item[1:])
    found.options += [text_of(option).upper() for option in items(words[end:])]
    found.options.sort()
    return found


def _clauses(found: TableText, column: str, item: Sequence[Token]) -> None:
    """The clauses of one column, or of the table constraints that stand without a comma between them."""
    place = 0
    name = ""  # of the constraint, where it has one
    key: tuple[str, ...] = ()  # columns of the key that was begun last, for its conflict clause
    clause = ""
    while place < len(item):
        token = item[place]
        place += 1
        following = item[place] if place < len(item) else _NOTHING
        if token.says("CONSTRAINT"):
            name = following.text
            place += 1
        elif token.says("CHECK"):
            inner, place = group(item, place)
            found.checks.append((f"CONSTRAINT {named(name)} " if name else "") + _bracketed("CHECK", inner))
            name, clause = "", "CHECK"
        elif token.says("COLLATE") and column:
            found.collations[column] = following.text.upper()
            place += 1
        elif token.says("AS") and following.says("(") and column:
            inner, place = group(item, place)
            stored = place < len(item) and item[place].says("STORED")
            found.generated[column] = _bracketed("STORED" if stored else "VIRTUAL", inner)
        elif token.says("DEFAULT"):
            # Its value may be a word that begins a clause elsewhere.
            place = group(item, place)[1] if following.says("(") else place + 1
        elif token.says("PRIMARY", "UNIQUE"):
            name, clause, key = "", "", (column,) if column else ()
            place += token.says("PRIMARY")  # KEY
            if place < len(item) and item[place].says("(") and not column:
                inner, place = group(item, place)
                key = tuple(part[0].text for part in items(inner))
        elif token.says("NOT") and following.says("NULL"):
            clause = "NOT NULL"
            place += 1
        elif token.says("REFERENCES"):
            name = ""
            found.deferrables.append("")
        elif token.says("DEFERRABLE") and found.deferrables:
            found.deferrables[-1] = _deferrable(item, place - 1)
        elif token.says("AUTOINCREMENT"):
            found.options.append("AUTOINCREMENT")
        elif token.says("ON") and following.says("CONFLICT") and place + 1 < len(item):
            action = f"ON CONFLICT {item[place + 1].text.upper()}"
            place += 2
            if clause:
                found.options.append(" ".join(filter(None, [column, clause, action])))
            else:
                found.conflicts[key] = action


def _bracketed(word: str, inner: Sequence[Token]) -> str:
    return f"{word} ({text_of(inner)})"


def _deferrable(item: Sequence[Token], place: int) -> str:
    """`DEFERRABLE …`; empty where it says NOT DEFERRABLE, which is the default."""
    if place > 0 and item[place - 1].says("NOT"):
        return ""
    if place + 2 < len(item) and item[place + 1].says("INITIALLY") and item[place + 2].says("DEFERRED"):
        return "DEFERRABLE INITIALLY DEFERRED"
    # SQLite takes DEFERRABLE alone for INITIALLY IMMEDIATE.
    return ""
