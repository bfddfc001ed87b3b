"""A script to its statements, as the engine's own shell would split it.

Semicolons in strings, quoted names, comments, dollar quotes and the bodies of triggers and SQL functions end nothing.
It splits; it does not check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from dal.errors import SchemaError
from dal.schema.connection import EngineName

_COMMON: Final = r"""
    (?P<comment>  --[^\n]*            )
  | (?P<block>    /\*                 )
  | (?P<quoted>   '(?:[^']|'')*' | "(?:[^"]|"")*" {quoted} )
  | (?P<word>     [^\W\d][\w$]*       )
  | (?P<end>      ;                   )
  | (?P<other>    .                   )
"""
_TOKENS: Final[dict[EngineName, re.Pattern[str]]] = {
    "sqlite": re.compile(_COMMON.format(quoted=r"| `(?:[^`]|``)*` | \[[^\]]*\]"), re.VERBOSE | re.DOTALL),
    "postgresql": re.compile(
        # An E string may hold \'; a dollar quote ends at its own tag.
        r"(?P<escaped> [eE]'(?:[^'\\]|''|\\.)*' ) | (?P<dollar> \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$ ) |"
        + _COMMON.format(quoted=""),
        re.VERBOSE | re.DOTALL,
    ),
}
_BLOCK_COMMENT: Final = re.compile(r"/\*|\*/")
_WITH_BODY: Final = frozenset({"TRIGGER", "FUNCTION", "PROCEDURE"})


def split_statements(script: str, engine: EngineName) -> list[str]:
    """Its statements in order, without the comments before them and the semicolon behind. A script that ends inside a
    string, a comment or a body raises SchemaError."""
    found: list[str] = []
    start: int | None = None
    words: list[str] = []
    depth = 0
    for kind, place, text in _tokens(script, engine):
        if kind == "end" and depth == 0:
            if start is not None:
                found.append(script[start:place])
            start, words = None, []
            continue
        if start is None:
            start = place
        if kind != "word":
            continue
        word = text.upper()
        if len(words) < 6:  # CREATE OR REPLACE CONSTRAINT TRIGGER is the longest beginning
            words.append(word)
        if depth:
            depth += {"BEGIN": 1, "CASE": 1, "END": -1}.get(word, 0)
        elif word == "BEGIN" and words[0] == "CREATE" and _WITH_BODY.intersection(words):
            depth = 1
    if depth:
        raise SchemaError("a migration ends inside BEGIN … END")
    if start is not None:
        found.append(script[start:])
    return [statement.rstrip() for statement in found]


def _tokens(script: str, engine: EngineName) -> Iterator[tuple[str, int, str]]:
    """Kind, place and text of everything but spaces and comments."""
    place = 0
    pattern = _TOKENS[engine]
    while place < len(script):
        token = pattern.match(script, place)
        assert token is not None and token.lastgroup is not None  # noqa: S101, PT018  # `other` takes any character
        kind, text = token.lastgroup, token.group()
        if kind == "block":
            place = _end_of_comment(script, place, nested=engine == "postgresql")
            continue
        if kind == "other" and text in "'\"":
            raise SchemaError("a migration ends inside a quoted string")
        if kind != "comment" and not text.isspace():
            yield kind, place, text
        place = token.end()


def _end_of_comment(script: str, place: int, *, nested: bool) -> int:
    depth = 0
    for mark in _BLOCK_COMMENT.finditer(script, place):
        if mark.group() == "*/":
            depth -= 1
            if depth <= 0:
                return mark.end()
        elif nested or depth == 0:
            depth += 1
    raise SchemaError("a migration ends inside a comment")
