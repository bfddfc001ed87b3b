"""Statements as words and names, and a cursor to read them with.

Built on the tokens that split a script, so that what the linter takes for a string, a comment or a quoted name is what
the engine takes for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from dal.schema.connection import EngineName
from dal.schema.statements import tokens

_CLOSING: Final = {'"': '"', "`": "`", "[": "]"}
#: Schemas that a name means where it names none.
_HOME: Final[dict[EngineName, str]] = {"sqlite": "main.", "postgresql": "public."}


def one_of(words: str) -> frozenset[str]:
    """A set of words from a text that names them."""
    return frozenset(words.split())


class Token(NamedTuple):
    """kind   word, name (quoted), string, number or sign.
    text   a word in upper case, a name or string without its quotes, a sign as it is.
    raw    as written.
    place  of its first character in the statement.
    """

    kind: str
    text: str
    raw: str
    place: int


NOTHING: Final = Token("end", "", "", 0)


def read(sql: str, engine: EngineName, offset: int = 0) -> list[Token]:
    """What the text consists of, without spaces and comments; `offset` is added to every place."""
    found: list[Token] = []
    for kind, place, raw in tokens(sql, engine):
        if kind == "word":
            text = raw.upper()
        elif kind == "name":
            closing = _CLOSING[raw[0]]
            text = raw[1:-1] if closing == "]" else raw[1:-1].replace(closing * 2, closing)
        elif kind == "string" and raw[0] == "$":
            tag = raw.index("$", 1) + 1
            text = raw[tag:-tag]
        elif kind == "string":
            text = raw[raw.index("'") + 1 : -1].replace("''", "'")
        else:
            text = raw
        found.append(Token(kind, text, raw, place + offset))
    return found


def joined(found: Sequence[Token]) -> str:
    """Tokens as one line for a message."""
    return " ".join(token.raw for token in found)


class Cursor:
    """A place in a list of tokens that moves forward."""

    __slots__ = ("engine", "place", "tokens")

    def __init__(self, found: Sequence[Token], engine: EngineName) -> None:
        self.tokens = found
        self.engine = engine
        self.place = 0

    def __bool__(self) -> bool:
        return self.place < len(self.tokens)

    @property
    def next(self) -> Token:
        return self.tokens[self.place] if self.place < len(self.tokens) else NOTHING

    def at(self, *words: str) -> bool:
        """These words or signs come next, in this order."""
        start = self.place
        if start + len(words) > len(self.tokens):
            return False
        for offset, word in enumerate(words):
            token = self.tokens[start + offset]
            if token.text != word or token.kind not in ("word", "sign"):
                return False
        return True

    def at_any(self, words: frozenset[str]) -> bool:
        return self.next.kind == "word" and self.next.text in words

    def take(self, *words: str) -> bool:
        """Steps over these words where they come next."""
        if not self.at(*words):
            return False
        self.place += len(words)
        return True

    def step(self) -> Token:
        token = self.next
        self.place += 1
        return token

    def name(self) -> str:
        """Steps over a name and gives it as the engine compares it; of a qualified one, the home schema is left out."""
        parts = [self._part()]
        while self.at("."):
            self.place += 1
            parts.append(self._part())
        return ".".join(parts).removeprefix(_HOME[self.engine])

    def _part(self) -> str:
        token = self.step()
        if self.engine == "sqlite":
            return token.raw.lower() if token.kind == "word" else token.text.lower()
        return token.raw.lower() if token.kind == "word" else token.text

    def names(self) -> list[str]:
        """A list of names, parted by commas."""
        found = [self.name()]
        while self.take(","):
            self.take("ONLY")
            found.append(self.name())
        return found

    def group(self) -> list[Token]:
        """Steps over the bracket that comes next and gives what stands in it; empty where none comes."""
        if not self.at("("):
            return []
        start = self.place + 1
        self._close()
        return list(self.tokens[start : self.place - 1])

    def part(self) -> list[Token]:
        """Steps over one token or one whole bracket and gives it as it stands."""
        start = self.place
        if self.at("("):
            self._close()
        else:
            self.place += 1
        return list(self.tokens[start : self.place])

    def rest(self) -> list[Token]:
        return list(self.tokens[self.place :])

    def _close(self) -> None:
        depth = 0
        while self.place < len(self.tokens):
            token = self.step()
            if token.kind == "sign":
                if token.text == "(":
                    depth += 1
                elif token.text == ")":
                    depth -= 1
                    if depth == 0:
                        return
        self.place = len(self.tokens) + 1  # never closed: the engine will say so


def parts(found: Sequence[Token]) -> list[list[Token]]:
    """The members of a list, parted at its own commas."""
    members: list[list[Token]] = [[]]
    depth = 0
    for token in found:
        if token.kind == "sign":
            if token.text in "([":
                depth += 1
            elif token.text in ")]":
                depth -= 1
            elif token.text == "," and depth == 0:
                members.append([])
                continue
        members[-1].append(token)
    return [member for member in members if member]


def outside(found: Sequence[Token]) -> list[Token]:
    """The tokens that stand in no bracket."""
    free: list[Token] = []
    depth = 0
    for token in found:
        if token.kind == "sign" and token.text == "(":
            depth += 1
        elif token.kind == "sign" and token.text == ")":
            depth -= 1
        elif depth == 0:
            free.append(token)
    return free
