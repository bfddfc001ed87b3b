"""The tables whose rows lie in line files: messages here, one file per chat, and logs in logrows.py, one file per day.

They answer the interpreter's questions from disk and hold next to nothing in memory. They only read: changes are kept
in overlays above them until a checkpoint has written them to the files. A line that is not a whole row is passed over
and named as a problem; the lines around it stay readable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Final, cast

import orjson

from dal.backends.file import index as ids
from dal.backends.file.codec import from_line
from dal.backends.file.documents import DocumentRows
from dal.backends.file.index import Index, Place
from dal.backends.file.layout import Layout
from dal.backends.file.lines import LineFile, open_lines
from dal.backends.file.prefilter import prefilter
from dal.backends.rows import ID, Scan, Stored
from dal.errors import CorruptDataError
from dal.ops import Value
from dal.tables import MESSAGES, Table

_CHAT: Final = MESSAGES.names.index("chat_session_id")
_NUMBER: Final = MESSAGES.names.index("sequence_number")
_CHAT_ID: Final = 1  # chat_sessions: the caller's own key

_CLOSE: Final = 32  # a gap of so many messages is read over
_FIRST_ROWS: Final = 16
_MOST_ROWS: Final = 1024

Report = Callable[[str], None]


class LineRows:
    """What these tables share. `report` takes a sentence about every damaged line."""

    def __init__(self, table: Table, layout: Layout, index: Index, report: Report) -> None:
        self._table = table
        self._layout = layout
        self._index = index
        self._report = report

    @property
    def table(self) -> Table:
        return self._table

    def put(self, row: Stored) -> None:
        raise NotImplementedError("line files change by checkpoints only")

    def remove(self, row_id: str) -> None:
        raise NotImplementedError("line files change by checkpoints only")

    def drop(self, column: str, parent_id: str) -> None:
        raise NotImplementedError("line files change by checkpoints only")

    def _row(self, file: LineFile, offset: int, line: bytes) -> Stored | None:
        try:
            return from_line(self._table, line)
        except ValueError:
            self._report(f"{self._layout.relative(file.path)}: byte {offset}: not a row of {self._table.name}")
            return None


class MessageRows(LineRows):
    """Messages in `chats/…/<chat>.jsonl`, sorted by their sequence number.

    chats  the chat sessions, which name the files.
    names  for chats whose `chat_id` has changed: the earlier ones, where their file may still be.
    """

    def __init__(
        self, layout: Layout, index: Index, report: Report, chats: DocumentRows, names: dict[str, list[str]]
    ) -> None:
        super().__init__(MESSAGES, layout, index, report)
        self._chats = chats
        self._names = names
        self._last: dict[str, int] = {}

    def get(self, row_id: Value) -> Stored | None:
        place = self._index.find(ids.MESSAGES, cast(str, row_id))
        if place is None:
            return None
        row = self._at(place.place, place.number)
        return row if row is not None and row[ID] == row_id else None

    def find(self, key: tuple[str, ...], values: tuple[Value, ...]) -> Stored | None:
        if len(key) == 1:
            return self.get(values[0])
        return self._at(cast(str, values[0]), cast(int, values[1]))

    def _at(self, chat_session_id: str, number: int) -> Stored | None:
        if number > self.last(chat_session_id):
            return None
        return next(self._of_chat(chat_session_id, number, number, descending=False), None)

    def last(self, chat_session_id: str) -> int:
        """The greatest sequence number in the chat's file, 0 for none."""
        found = self._last.get(chat_session_id)
        if found is None:
            newest = next(self._of_chat(chat_session_id, None, None, descending=True), None)
            found = self._last[chat_session_id] = 0 if newest is None else newest[_NUMBER]
        return found

    def forget_all(self) -> None:
        """The files have changed."""
        self._last.clear()

    def open(self, chat_session_id: str) -> LineFile | None:
        """The file that holds this chat's messages, wherever it is; None where there is none."""
        chat = self._chats.get(chat_session_id)
        if chat is None:
            self._refuse_if_damaged(chat_session_id)
            return None
        paths = [self._layout.messages(chat[_CHAT_ID])]
        if chat_session_id in self._names:
            # In the order in which a checkpoint moves the file: who looks at each place meanwhile does not miss it.
            earlier = [self._layout.messages(name) for name in list(self._names[chat_session_id])]
            paths = [*earlier, self._layout.moving_messages(chat_session_id), *paths]
        for path in map(self._layout.relative, paths):
            try:
                file = open_lines(self._layout, partial(self._layout.absolute, path))
            except FileNotFoundError:
                continue
            if owner(file) == chat_session_id:
                return file
            file.__exit__()
        return None

    def _file(self, chat_session_id: str) -> LineFile | None:
        """As `open`, for readers who look at the rows anyway: it may be the file of a chat that had this key before."""
        chat = None if chat_session_id in self._names else self._chats.get(chat_session_id)
        if chat is None:
            return self.open(chat_session_id)
        try:
            return open_lines(self._layout, lambda: self._layout.messages(chat[_CHAT_ID]))
        except FileNotFoundError:
            return None

    def _refuse_if_damaged(self, chat_session_id: str) -> None:
        for name, problem in list(self._chats.corrupt.items()):
            lines = name.removesuffix(".json") + ".jsonl"
            path_of = partial(self._layout.absolute, lines)
            with suppress(FileNotFoundError), open_lines(self._layout, path_of) as file:
                if owner(file) == chat_session_id:
                    raise CorruptDataError(f"{problem}; restore the file from a backup", backend="file")

    def _of_chat(
        self,
        chat_session_id: str,
        low: int | None,
        high: int | None,
        *,
        descending: bool,
        passes: Callable[[bytes], bool] | None = None,
    ) -> Iterator[Stored]:
        """A chat's messages with a number from `low` to `high`, in either direction."""
        if low is None or low <= self.last(chat_session_id):
            yield from self._stretch(chat_session_id, low, high, descending=descending, passes=passes)

    def _stretch(
        self,
        chat_session_id: str,
        low: int | None,
        high: int | None,
        *,
        descending: bool,
        passes: Callable[[bytes], bool] | None = None,
    ) -> Iterator[Stored]:
        file = self._file(chat_session_id)
        if file is None:
            return
        with file:
            if descending:
                end = None if high is None or high >= self.last_in(file) else file.bisect(_number, high + 1)
                lines = file.backward(end)
            else:
                lines = file.forward(0 if low is None or low <= 1 else file.bisect(_number, low), 16 * 1024)
            for offset, line in lines:
                if passes is not None and not passes(line):
                    continue
                row = self._row(file, offset, line)
                if row is None:
                    continue
                if row[_CHAT] != chat_session_id:
                    return  # left by a chat that had this key before; the next checkpoint removes it
                if descending:
                    if low is not None and row[_NUMBER] < low:
                        return
                elif high is not None and row[_NUMBER] > high:
                    return
                yield row

    def last_in(self, file: LineFile) -> int:
        """The greatest sequence number in an open file, 0 for none."""
        for _, line in file.backward():
            number = _number(line)
            if number is not None:
                return number
        return 0

    def scan(self, plan: Scan) -> tuple[Iterable[Stored], bool]:
        equal = plan.equal()
        if "id" in equal:
            row = self.get(equal["id"])
            return ([] if row is None else [row]), True
        for condition in plan.where:
            if condition.column == "id" and condition.op == "in":
                wanted = cast("Iterable[str]", condition.value)
                return self._at_places(self._index.find_many(ids.MESSAGES, wanted)), False
        chat_session_id = cast("str | None", equal.get("chat_session_id"))
        if chat_session_id is not None:
            by_number = bool(plan.order) and plan.order[0] in ("sequence_number", "-sequence_number")
            descending = by_number and plan.order[0][0] == "-"
            low, high = _bounds(plan, by_number=by_number, descending=descending)
            passes = None if plan.search is None else prefilter(plan.search)
            return self._of_chat(chat_session_id, low, high, descending=descending, passes=passes), by_number
        if plan.order == ("id",):
            return self._by_id(None if plan.after is None else cast(str, plan.after[0])), True
        return self._everywhere(plan), False

    def _at_places(self, found: Iterable[Place]) -> Iterator[Stored]:
        """The messages with the ids of these places, chat by chat: neighbours are read together."""
        chats: dict[str, set[int]] = {}
        places: dict[str, tuple[str, int]] = {}  # of several ids at one place, all but one are of rows that are gone
        for row_id, chat_session_id, number in found:
            chats.setdefault(chat_session_id, set()).add(number)
            places[row_id] = (chat_session_id, number)
        return (
            row
            for chat_session_id, numbers in chats.items()
            for low, high in _stretches(sorted(numbers))
            for row in self._stretch(chat_session_id, low, high, descending=False)
            if places.get(row[ID]) == (chat_session_id, row[_NUMBER])
        )

    def _by_id(self, after: str | None) -> Iterator[Stored]:
        """Messages in the order of ids, more and more at a time."""
        places, count = self._index.behind(ids.MESSAGES, after), _FIRST_ROWS
        while some := list(islice(places, count)):
            found = {row[ID]: row for row in self._at_places(some)}
            yield from (found[place.id] for place in some if place.id in found)
            count = min(2 * count, _MOST_ROWS)

    def _everywhere(self, plan: Scan) -> Iterator[Stored]:
        equal = plan.equal()
        passes = None if plan.search is None else prefilter(plan.search)
        chats: Iterable[Stored]
        if "chat_session_id.chat_id" in equal:
            chat = self._chats.find(("chat_id",), (equal["chat_session_id.chat_id"],))
            chats = [] if chat is None else [chat]
        elif "chat_session_id.user_id" in equal:
            chats = self._chats.children("user_id", cast(str, equal["chat_session_id.user_id"]))
        elif (wanted := next((c.value for c in plan.where if c[:2] == ("chat_session_id", "in")), None)) is not None:
            found = (self._chats.get(chat_id) for chat_id in dict.fromkeys(cast("Iterable[str]", wanted)))
            chats = [chat for chat in found if chat is not None]
        else:
            chats = list(self._chats)
        return (row for chat in chats for row in self._of_chat(chat[ID], None, None, descending=True, passes=passes))


def owner(file: LineFile) -> str | None:
    """The id of the chat whose messages a file holds, as its first whole row says; None for an empty file."""
    for _, line in file.forward(0, 4096):
        try:
            found = orjson.loads(line)
            return str(found["chat_session_id"])
        except (ValueError, KeyError, TypeError):
            continue
    return None


def _number(line: bytes) -> int | None:
    """The sequence number of a line, None where it is not a message."""
    try:
        found = orjson.loads(line)["sequence_number"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if type(found) is int else None


def _stretches(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of numbers that lie close together."""
    first = last = numbers[0]
    for number in numbers[1:]:
        if number - last > _CLOSE:
            yield first, last
            first = number
        last = number
    yield first, last


def _bounds(plan: Scan, *, by_number: bool, descending: bool) -> tuple[int | None, int | None]:
    """The least and the greatest sequence number that the plan lets through; None for no bound."""
    low: int | None = None
    high: int | None = None
    bounds: list[tuple[str, object]] = [(c.op, c.value) for c in plan.where if c.column == "sequence_number"]
    if by_number and plan.after is not None:
        bounds.append(("<" if descending else ">", plan.after[0]))
    for op, value in bounds:
        if type(value) is not int:
            continue
        if op in (">", ">=", "="):
            least = value + (op == ">")
            low = least if low is None else max(low, least)
        if op in ("<", "<=", "="):
            most = value - (op == "<")
            high = most if high is None else min(high, most)
    return low, high
