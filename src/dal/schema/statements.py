"""A script to its statements, as the engine's own shell would split it.

Semicolons in strings, quoted names, comments, dollar quotes, the bodies of triggers and SQL functions and, on
PostgreSQL, in brackets end nothing: psql's rules and those of SQLite's `sqlite3_complete`. What only psql can read
(backslash commands, rows behind COPY … FROM STDIN) is refused by its line. It splits; it does not check.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from dal.errors import SchemaError
from dal.schema.connection import EngineName

#: word: keyword, plain name.  name: in the engine's quotes for names.  string: a literal, dollar quotes too.
TokenKind: TypeAlias = Literal["word", "name", "string", "number", "sign"]

_COMMON: Final = r"""
    (?P<space>    \s+ | --[^\n]*                        )
  | (?P<block>    /\*                                   )
  | (?P<string>   {string} '(?:[^']|'')*'               )
  | (?P<name>     "(?:[^"]|"")*" {name}                 )
  | (?P<word>     [^\W\d][\w$]*                         )
  | (?P<number>   \d[\w.]*(?:(?<=[eE])[+-]\d+)?         )
  | (?P<open>     ['"`\[]                               )
  | (?P<sign>     .                                     )
"""
_PATTERNS: Final[dict[EngineName, re.Pattern[str]]] = {
    "sqlite": re.compile(_COMMON.format(string="", name=r"| `(?:[^`]|``)*` | \[[^\]]*\]"), re.VERBOSE | re.DOTALL),
    "postgresql": re.compile(
        # An E string may hold \'; a dollar quote ends at its own tag.
        _COMMON.format(
            string=r"[eE]'(?:[^'\\]|''|\\.)*' | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$ | [eE](?=') |",
            name="",
        ),
        re.VERBOSE | re.DOTALL,
    ),
}
_BLOCK_COMMENT: Final = re.compile(r"/\*|\*/")
_DOLLAR: Final = re.compile(r"\$(?:[^\W\d]\w*)?\$")


class ScriptError(SchemaError):
    """A script that cannot be split; `line` says where, from 1."""

    def __init__(self, message: str, *, line: int = 1) -> None:
        super().__init__(message)
        self.line = line

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.message, self.line))


def _rebuild(message: str, line: int) -> ScriptError:
    return ScriptError(message, line=line)


class Token(NamedTuple):
    """kind, the place of its first character, and its text as written, quotes included."""

    kind: TokenKind
    place: int
    text: str

    def says(self, *words: str) -> bool:
        """It is one of these keywords or signs, given in upper case."""
        return self.kind in ("word", "sign") and self.text.upper() in words


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, without the comments around it and the semicolon behind it.

    line  of its first word in the script, from 1.
    """

    sql: str
    line: int = 1

    def line_of(self, place: int) -> int:
        """The script's line that this character of the statement stands in."""
        return self.line + self.sql.count("\n", 0, place)

    def beginning(self, chars: int = 200) -> str:
        """Its beginning on one line, for messages."""
        text = " ".join(self.sql[: chars * 2].split())
        return text if len(text) <= chars and len(self.sql) <= chars * 2 else f"{text[:chars]}…"


def split_statements(script: str, engine: EngineName) -> list[Statement]:
    """Its statements in order. A script that ends inside a string, a comment or a body raises ScriptError."""
    return read_script(script, engine)[0]


def tokens(sql: str, engine: EngineName) -> Iterator[Token]:
    """Everything but spaces and comments. Raises ScriptError where a quote or a comment does not end."""
    place = 0
    pattern = _PATTERNS[engine]
    while place < len(sql):
        found = pattern.match(sql, place)
        assert found is not None and found.lastgroup is not None  # noqa: S101, PT018  # `sign` takes any character
        kind, text = found.lastgroup, found.group()
        if kind == "block":
            place = _end_of_comment(sql, place, nested=engine == "postgresql")
            continue
        is_torn = text in ("e", "E") if kind == "string" else kind == "open" and (text in "'\"" or engine == "sqlite")
        if is_torn:
            raise ScriptError("a script ends inside a quoted string or name", line=_line(sql, place))
        if engine == "postgresql" and text == "$" and _DOLLAR.match(sql, place):
            raise ScriptError("a script ends inside a dollar-quoted string", line=_line(sql, place))
        if kind != "space":
            yield Token(cast(TokenKind, "sign" if kind == "open" else kind), place, text)
        place = found.end()


def words_of(sql: str, engine: EngineName, count: int) -> list[str]:
    """Its first words in upper case, up to the first token that is none."""
    found: list[str] = []
    for token in tokens(sql, engine):
        if token.kind != "word" or len(found) == count:
            break
        found.append(token.text.upper())
    return found


def read_script(script: str, engine: EngineName) -> tuple[list[Statement], bool]:
    """As `split_statements`, and whether the last statement lacks its semicolon."""
    ends = [place for place, character in enumerate(script) if character == "\n"]
    found: list[Statement] = []
    reading: list[Token] = []
    body = _Body(engine)
    for token in tokens(script, engine):
        if token.text == ";" and token.kind == "sign" and not body.is_open:
            if reading:
                found.append(_statement(script, reading, ends))
                _check_copy(reading, found[-1].line)
            reading, body = [], _Body(engine)
            continue
        if token.text == "\\" and engine == "postgresql":
            raise ScriptError(
                "psql's backslash commands are read by psql alone; write the SQL they stand for",
                line=_line(script, token.place),
            )
        reading.append(token)
        body.see(token)
    if body.is_open and reading:
        raise ScriptError(f"a script ends inside {body.what}", line=_line(script, reading[0].place))
    if reading:
        found.append(_statement(script, reading, ends))
        _check_copy(reading, found[-1].line)
    return found, bool(reading)


class _Body:
    """Whether a semicolon is inside a statement's body, told token by token.

    SQLite: CREATE TRIGGER ends at `; END ;` and nowhere else, as in `sqlite3_complete`: a column may be called `end`.
    PostgreSQL: BEGIN, CASE and END count in a function or procedure, brackets everywhere, as in psql.
    """

    def __init__(self, engine: EngineName) -> None:
        self._engine = engine
        self._words: list[str] = []
        self._is_beginning = True
        self._before: Token | None = None
        self._depth = 0
        self._brackets = 0
        self._in_trigger = False
        self._at_end = False

    @property
    def is_open(self) -> bool:
        return self._depth > 0 or self._brackets > 0 or (self._in_trigger and not self._at_end)

    @property
    def what(self) -> str:
        return "brackets" if self._brackets else "BEGIN … END"

    def see(self, token: Token) -> None:
        word = token.text.upper() if token.kind == "word" else ""
        self._is_beginning = self._is_beginning and bool(word)
        if self._is_beginning:
            self._words.append(word)
        if self._engine == "sqlite":
            self._see_sqlite(word)
        else:
            self._see_postgresql(token, word)
        self._before = token

    def _see_sqlite(self, word: str) -> None:
        if word == "TRIGGER" and _is_trigger(self._words):
            self._in_trigger = True
        self._at_end = word == "END" and self._before is not None and self._before.says(";")

    def _see_postgresql(self, token: Token, word: str) -> None:
        if token.says("(", ")"):
            self._brackets = max(0, self._brackets + (1 if token.text == "(" else -1))
        elif word and self._brackets == 0 and _is_function(self._words):
            if word == "BEGIN" or (word == "CASE" and self._depth):
                self._depth += 1
            elif word == "END" and self._depth:
                self._depth -= 1


def _is_trigger(words: Sequence[str]) -> bool:
    return words[:1] == ["CREATE"] and words[-1] == "TRIGGER" and {"TEMP", "TEMPORARY"}.issuperset(words[1:-1])


def _is_function(words: Sequence[str]) -> bool:
    kind = words[3:4] if words[1:3] == ["OR", "REPLACE"] else words[1:2]
    return words[:1] == ["CREATE"] and kind in (["FUNCTION"], ["PROCEDURE"])


def _check_copy(found: Sequence[Token], line: int) -> None:
    if found[0].says("COPY") and any(
        token.says("FROM") and following.says("STDIN") for token, following in pairwise(found)
    ):
        raise ScriptError("the rows behind COPY … FROM STDIN are read by psql alone; write INSERT", line=line)


def _statement(script: str, found: Sequence[Token], line_ends: list[int]) -> Statement:
    start, last = found[0].place, found[-1]
    return Statement(script[start : last.place + len(last.text)], bisect_left(line_ends, start) + 1)


def _line(script: str, place: int) -> int:
    return script.count("\n", 0, place) + 1


def _end_of_comment(script: str, start: int, *, nested: bool) -> int:
    depth = 0
    for mark in _BLOCK_COMMENT.finditer(script, start):
        if mark.group() == "*/":
            depth -= 1
            if depth <= 0:
                return mark.end()
        elif nested or depth == 0:
            depth += 1
    raise ScriptError("a script ends inside a comment", line=_line(script, start))
