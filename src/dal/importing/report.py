"""What an import did: counts, and every record that was refused with the reason.

A report never holds the content of a message; the place (file, line, chat) is enough to find it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Final, Literal, NamedTuple

import orjson

from dal.ops import JsonValue

MAX_REFUSALS_KEPT: Final = 1000  # in a report; every one goes to `on_refusal`


class Refusal(NamedTuple):
    """A record that was not imported, and where it stands. `chat_id` and `user` as far as they could be read."""

    file: str
    line: int
    chat_id: str | None
    user: str | None
    reason: str

    def json_line(self) -> bytes:
        """The refusal as a line of a report."""
        return orjson.dumps(self._asdict(), option=orjson.OPT_APPEND_NEWLINE)


class Progress(NamedTuple):
    """How far an import has come.

    phase    `load`: rows are being written.  `index`: rows are being made searchable.
    indexed  messages made searchable so far.
    """

    phase: Literal["load", "index"]
    read_bytes: int
    size_bytes: int
    chats: int
    messages: int
    memory_items: int
    refused: int
    indexed: int


@dataclass(slots=True)
class ImportReport:
    """The outcome of importing one file.

    users, chats, messages, memory_items   rows written.
    grown      chats that were there and got the messages that were missing at their end.
    unchanged  records of which every row was there already.
    refused    records that were not imported; `refusals` holds the first 1,000 of them.
    replaced   texts in which U+0000 or lone surrogates became U+FFFD.
    load_s     seconds until every row was durable.
    index_s    seconds of making them searchable after that.
    """

    file: str
    users: int = 0
    chats: int = 0
    grown: int = 0
    messages: int = 0
    memory_items: int = 0
    unchanged: int = 0
    refused: int = 0
    replaced: int = 0
    indexed: int = 0
    load_s: float = 0.0
    index_s: float = 0.0
    refusals: list[Refusal] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows written to any table."""
        return self.users + self.chats + self.messages + self.memory_items

    @property
    def messages_per_s(self) -> float:
        """Messages written a second, indexing not counted."""
        return self.messages / self.load_s if self.load_s > 0 else 0.0

    def as_dict(self) -> dict[str, JsonValue]:
        """The report as a JSON object."""
        refusals: list[JsonValue] = [dict(refusal._asdict()) for refusal in self.refusals]
        return {**asdict(self), "messages_per_s": self.messages_per_s, "refusals": refusals}
