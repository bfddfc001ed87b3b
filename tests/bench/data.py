"""The data both sides hold: users, chats of several lengths and user memory, made from a seed.

Texts are English, Japanese and code of the lengths chats have, or, with a corpus in the project's import format, real
ones. Ids are UUIDv7 with times that grow, as the library makes them, so that indexes fill as they would in use.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

from dal import DataAccess, NewMessage
from dal.ops import JsonValue

SEED: Final = 20240229
BEGIN: Final = datetime(2024, 2, 29, tzinfo=UTC)
MEMORY_TYPE: Final = "preferences"
#: Stands in every hundredth text: what the search benchmark looks for.
RARE_WORD: Final = "differential"

_PROSE: Final = (
    "the engine computes a table of numbers while you wait and prints it; could we make the column wider, please? "
    "I think that the carry is wrong here. Thanks! def carry(digits): return sum(d // 10 for d in digits)  # ok"
)
_JAPANESE: Final = "今日は天気がいいですね。散歩に行きませんか。機械で計算した表を印刷します。ありがとうございます！"
_TEXTS: Final = 5_000
_ROLES: Final = ("user", "assistant")


class Scale(NamedTuple):
    """How much of everything."""

    chats: int = 200  # of `chat_messages` each; appends of many tasks go to chats of their own among them
    chat_messages: int = 20
    lengths: tuple[int, ...] = (10, 1_000, 100_000)  # one chat of each length, for history
    users: int = 50
    memory_items: int = 20  # of each user
    bulk_messages: int = 20_000  # one imported file
    large_mib: int = 1024  # one large content


class Data:
    """Everything the sides hold before the first measurement, and the texts and choices of the calls."""

    def __init__(self, scale: Scale, *, corpus: Path | None = None) -> None:
        self.scale = scale
        self._random = random.Random(SEED)
        self._time = BEGIN
        self.texts = _corpus_texts(corpus) if corpus else [self._text(n) for n in range(_TEXTS)]
        self.users = [self._id() for _ in range(scale.users)]
        self.chats = [f"chat-{n}" for n in range(scale.chats)]
        self.chat_of_length = {length: f"long-{length}" for length in scale.lengths}
        #: chat → its messages, in order. The ids of the short chats are what point reads ask for.
        self.messages = {chat: self._messages(scale.chat_messages) for chat in self.chats}
        self.message_ids = [str(m.id) for some in self.messages.values() for m in some]
        self._random.shuffle(self.message_ids)
        self.keys = [f"key-{n}" for n in range(scale.memory_items)]
        #: Files to be imported, one a call; see `write_bulk_files`.
        self.bulk_files: list[Path] = []
        #: By call number: whether a mixed call writes (one in five, in no regular order).
        self.writes = [self._random.random() < 0.2 for _ in range(4_999)]

    def long_chat(self, length: int) -> Iterator[NewMessage]:
        """The messages of the chat of this length; the same ones each time."""
        own = random.Random(length)
        time = BEGIN
        for n in range(length):
            time += timedelta(milliseconds=1)
            yield NewMessage(_ROLES[n % 2], own.choice(self.texts), {"n": n}, id=_uuid7(own, time), created_at=time)

    def text(self, number: int) -> str:
        return self.texts[number % len(self.texts)]

    def value(self, number: int) -> JsonValue:
        """A value for user memory."""
        return {"tone": "brief", "n": number, "likes": ["tables", "engines"]}

    async def fill(self, dal: DataAccess) -> None:
        """Writes everything into an empty store."""
        for user in self.users:
            await dal.users.create(id=user, clerk_id=f"clerk-{user}", name="Ada", email="ada@example.com")
            await dal.memory.set_many(user, MEMORY_TYPE, {key: self.value(n) for n, key in enumerate(self.keys)})
        for n, chat in enumerate(self.chats):
            await dal.chats.create(chat, user_id=self.users[n % len(self.users)], title="Engines")
            await dal.messages.add_many(chat, self.messages[chat])
        for length, chat in self.chat_of_length.items():
            await dal.chats.create(chat, user_id=self.users[0], title=f"{length} messages")
            for some in _chunks(self.long_chat(length), 1_000):
                await dal.messages.add_many(chat, some)

    def write_bulk_files(self, directory: Path, count: int) -> None:
        """So many files in the import format, each with `bulk_messages` messages in chats of forty, all different."""
        while len(self.bulk_files) < count:
            self.bulk_files.append(self._bulk_file(directory, len(self.bulk_files)))

    def _bulk_file(self, directory: Path, number: int) -> Path:
        path = directory / f"bulk-{number}.jsonl"
        own = random.Random(number)
        with path.open("w", encoding="utf-8") as file:
            for chat in range(0, self.scale.bulk_messages, 40):
                count = min(40, self.scale.bulk_messages - chat)
                at = (BEGIN + timedelta(days=number, seconds=chat)).replace(tzinfo=None)  # the format has no zones
                messages: list[JsonValue] = [
                    {
                        "role": _ROLES[n % 2],
                        "content": own.choice(self.texts),
                        "at": (at + timedelta(seconds=n)).isoformat(),
                        "metadata": {"speaker": "AC"},
                    }
                    for n in range(count)
                ]
                record: dict[str, JsonValue] = {
                    "chat_id": f"bulk-{number}-{chat}",
                    "user": None,
                    "source": "bench",
                    "title": "A bulk chat",
                    "started_at": at.isoformat(),
                    "metadata": {},
                    "messages": messages,
                }
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        return path

    def _messages(self, count: int) -> list[NewMessage]:
        made = []
        for n in range(count):
            text = self._random.choice(self.texts)
            id = self._id()
            made.append(NewMessage(_ROLES[n % 2], text, {"n": n}, id=id, created_at=self._time))
        return made

    def _text(self, number: int) -> str:
        length = min(2_000, int(self._random.lognormvariate(4.6, 0.9)))  # characters: median 100, mean 150
        if number % 3 == 0:
            start = self._random.randrange(len(_JAPANESE))
            text = (_JAPANESE[start:] + _JAPANESE * (length // len(_JAPANESE) + 1))[: max(4, length // 2)]
        else:
            text = " ".join(self._random.choices(_PROSE.split(), k=max(1, length // 5)))
        return f"{text} {RARE_WORD}" if number % 100 == 0 else text

    def _id(self) -> str:
        self._time += timedelta(milliseconds=1)
        return _uuid7(self._random, self._time)


def _uuid7(source: random.Random, time: datetime) -> str:
    milliseconds = int(time.timestamp() * 1000)
    bits = milliseconds << 80 | 7 << 76 | source.getrandbits(12) << 64 | 2 << 62 | source.getrandbits(62)
    return str(UUID(int=bits))


def _chunks(messages: Iterator[NewMessage], size: int) -> Iterator[list[NewMessage]]:
    some: list[NewMessage] = []
    for message in messages:
        some.append(message)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def _corpus_texts(path: Path) -> list[str]:
    """The first texts of a corpus in the import format, read in place."""
    texts: list[str] = []
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            texts += [str(m["content"])[:2_000] for m in json.loads(line)["messages"]]
            if len(texts) >= _TEXTS:
                return texts[:_TEXTS]
    return texts
