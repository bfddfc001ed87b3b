"""SQL that a database gave back, in one form: spaces, comments and quotes that mean nothing are gone.

Made for comparing definitions and for taking a CREATE statement apart. Scripts of people are split by `statements`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from dal.schema import statements
from dal.schema.connection import EngineName
from dal.schema.statements import Token

_PLAIN: Final = re.compile(r"[^\W\d][\w$]*")
#: Signs that are one only together.
_LONG_SIGNS: Final = frozenset({"::", "<=", ">=", "<>", "!=", "==", "||", "->", "->>", "<<", ">>", "@>", "<@", "&&"})
#: Words that an opening bracket keeps a space from; after all others it is a call or a list of columns.
_SPACED: Final = (
    *("ALWAYS", "AND", "AS", "BETWEEN", "BY", "CASE", "CHECK", "DEFAULT", "ELSE", "EXISTS", "FROM", "IN", "INCLUDE"),
    *("IS", "JOIN", "KEY", "LIKE", "NOT", "NULL", "ON", "OR", "OVER", "SELECT", "THEN", "UNION", "UNIQUE", "USING"),
    *("VALUES", "WHEN", "WHERE", "WITH"),
)
_UPPER: Final = str.maketrans({chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)})


def tokens(sql: str, engine: EngineName) -> list[Token]:
    """What the text consists of, without spaces and comments.

    SQLite's names come without their quotes, which may be of four kinds. PostgreSQL quotes a name where it must, and in
    one way: there a quoted name is a word.
    """
    found: list[Token] = []
    for token in statements.tokens(sql, engine):
        before = found[-1] if found else None
        if before is not None and before.place + len(before.text) == token.place and (kind := _joint(before, token)):
            found[-1] = kind._replace(place=before.place, text=before.text + token.text)
        elif token.kind == "name":
            name = token._replace(text=unquoted(token.text)) if engine == "sqlite" else token._replace(kind="word")
            found.append(name)
        else:
            found.append(token)
    return found


def _joint(before: Token, token: Token) -> Token | None:
    """The one whose kind the two have together: `-` `>`, `.` `5`, `x` `'00'`; None where they are two."""
    if before.kind == token.kind == "sign" and before.text + token.text in _LONG_SIGNS:
        return token
    if token.kind == "number" and before.says("."):
        return token
    if token.kind == "string" and before.says("X"):
        return token
    return None


def unquoted(name: str) -> str:
    """A name without its quotes of any dialect; SQLite takes those of strings, too."""
    closing = {'"': '"', "'": "'", "`": "`", "[": "]"}.get(name[:1])
    if closing is None or len(name) < 2 or name[-1] != closing:
        return name
    return name[1:-1] if closing == "]" else name[1:-1].replace(closing * 2, closing)


def text_of(found: Iterable[Token]) -> str:
    """Tokens as one line: one space where a reader wants one, quotes only around names that need them."""
    line = ""
    before: Token | None = None
    for token in found:
        if before is not None and _spaced(before, token):
            line += " "
        line += named(token.text) if token.kind == "name" else token.text
        before = token
    return line


def named(name: str) -> str:
    """A name with quotes where it needs them to be one word."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def normal(sql: str) -> str:
    """SQLite's text in its one form, upper and lower case as written."""
    return text_of(tokens(sql, "sqlite"))


def folded(sql: str) -> str:
    """SQLite's text with ASCII words in lower case and strings untouched: equal where it takes them for the same."""
    return text_of(
        token if token.kind == "string" else token._replace(text=token.text.translate(_UPPER))
        for token in tokens(sql, "sqlite")
    )


def group(found: Sequence[Token], start: int) -> tuple[list[Token], int]:
    """What stands between the bracket at `start` and its other one, and the place behind that."""
    depth = 0
    for place in range(start, len(found)):
        if found[place].says("("):
            depth += 1
        elif found[place].says(")"):
            depth -= 1
            if depth == 0:
                return list(found[start + 1 : place]), place + 1
    return list(found[start + 1 :]), len(found)


def items(found: Sequence[Token]) -> list[list[Token]]:
    """The members of a list, parted at its commas."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in found:
        depth += token.says("(") - token.says(")")
        if depth == 0 and token.says(","):
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _spaced(before: Token, token: Token) -> bool:
    if token.says(",", ")", ".", "::", ";") or before.says("(", ".", "::"):
        return False
    if token.says("("):
        return before.kind == "sign" or before.says(*_SPACED)
    return True
