"""SQL that a database gave back, in one form: spaces, comments and quotes that mean nothing are gone.

Made for comparing definitions and for taking a CREATE statement apart. The text is known to be valid, because a
database stores it; scripts of people are read by `statements`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

_TOKENS: Final = re.compile(
    r"""
    (?P<skip>    \s+ | --[^\n]* | /\*.*?(?:\*/|\Z)                           )
  | (?P<string>  [xX]?'(?:[^']|'')*'                                        )
  | (?P<name>    "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]               )
  | (?P<word>    [^\W\d][\w$]*                                              )
  | (?P<number>  \d[\w.]*(?:(?<=[eE])[+-]\d+)? | \.\d+                      )
  | (?P<sign>    ::|<=|>=|<>|!=|==|\|\||->>?|<<|>>|.                         )
    """,
    re.VERBOSE | re.DOTALL,
)
_PLAIN: Final = re.compile(r"[^\W\d][\w$]*")
#: Words that an opening bracket keeps a space from; after all others it is a call or a list of columns.
_SPACED: Final = (
    *("ALWAYS", "AND", "AS", "BETWEEN", "BY", "CASE", "CHECK", "DEFAULT", "ELSE", "EXISTS", "FROM", "IN", "INCLUDE"),
    *("IS", "JOIN", "KEY", "LIKE", "NOT", "NULL", "ON", "OR", "OVER", "SELECT", "THEN", "UNION", "UNIQUE", "USING"),
    *("VALUES", "WHEN", "WHERE", "WITH"),
)
_UPPER: Final = str.maketrans({chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)})


class Token(NamedTuple):
    """kind: string, name (quoted), word, number or sign. text: as written, for a name without its quotes."""

    kind: str
    text: str

    def says(self, *words: str) -> bool:
        """It is one of these keywords or signs, given in upper case."""
        return self.kind in ("word", "sign") and self.text.upper() in words


def tokens(sql: str, *, keep_quotes: bool = False) -> list[Token]:
    """What the text consists of, without spaces and comments.

    keep_quotes  quoted names are words with their quotes: for PostgreSQL, which quotes in one way only, and where it
                 matters.
    """
    found = []
    for match in _TOKENS.finditer(sql):
        kind, text = str(match.lastgroup), match.group()
        if kind == "name":
            found.append(Token("word", text) if keep_quotes else Token("name", unquoted(text)))
        elif kind != "skip":
            found.append(Token(kind, text))
    return found


def unquoted(name: str) -> str:
    """A name without its quotes of any dialect."""
    closing = {'"': '"', "`": "`", "[": "]"}.get(name[:1])
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
        line += _quoted(token.text) if token.kind == "name" else token.text
        before = token
    return line


def normal(sql: str) -> str:
    """The text in its one form, upper and lower case as written."""
    return text_of(tokens(sql))


def folded(sql: str) -> str:
    """The text with ASCII words in lower case and strings untouched: what SQLite takes for the same."""
    return text_of(
        Token(token.kind, token.text.translate(_UPPER)) if token.kind in ("word", "name", "number") else token
        for token in tokens(sql)
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


def _quoted(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name
    return '"' + name.replace('"', '""') + '"'
