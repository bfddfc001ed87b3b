"""Messages: `dal.messages`, numbered 1, 2, 3 … within their chat, without a gap and without a repeat.

A message gets its number from its chat's own row, raised in the same commit, so numbers follow the order of commits
however many processes write; timestamps are data, never the order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from dal import search as text_search
from dal.cursor import Listing
from dal.errors import (
    AlreadyExistsError,
    ConflictError,
    DalError,
    InvalidInputError,
    MissingReferenceError,
    NotFoundError,
)
from dal.limits import (
    MAX_BATCH_MESSAGES,
    MAX_HISTORY_MESSAGES,
    MAX_HISTORY_OFFSET,
    MAX_INT32,
    MAX_PAGE_ROWS,
    MAX_SEARCH_CHARS,
)
from dal.models import Message, NewMessage, Page, SearchHit, build, page
from dal.ops import Compare, Guard, Insert, JsonValue, Op, Ref, Row, Search, Select, Update, Value
from dal.repositories.base import Repository, known_id
from dal.tables import MESSAGES
from dal.values import check_id, check_int, check_limit, check_object, check_text, check_time

# The record's fields: the chat's key stands where the table has the chat's row id.
_FIELDS = tuple(Message.model_fields)
_IN_CHAT = tuple(c for c in _FIELDS if c != "chat_id")
_ANYWHERE = tuple("chat_session_id.chat_id" if c == "chat_id" else c for c in _FIELDS)
_TEMPLATE: dict[str, Value] = dict.fromkeys(_FIELDS)
_NEWEST_FIRST = MESSAGES.search_order


class Messages(Repository):
    """Append, read, count, flag and search messages."""

    table = MESSAGES

    async def add(
        self,
        chat_id: str,
        role: str,
        content: str,
        *,
        metadata: dict[str, JsonValue] | None = None,
        token_count: int | None = None,
        id: str | None = None,
        created_at: datetime | None = None,
        expected_sequence: int | None = None,
    ) -> Message:
        """The message as stored, with its sequence number.

        id                 a UUID of your own making: the same call again gives the stored message, another message
                           under the same id raises AlreadyExistsError. None makes one.
        created_at         aware datetime; None is now.
        expected_sequence  the number this message must get; ConflictError when somebody was faster.
        Raises             MissingReferenceError: no such chat.  InvalidInputError: a value breaks a rule.
        Cost               one round trip; concurrent calls share one.
        """
        now = self._now()
        row = self._row(role, content, metadata, token_count, id, created_at, now)
        return (await self._append(chat_id, [row], now, expected_sequence))[0]

    async def add_many(self, chat_id: str, messages: Sequence[NewMessage]) -> list[Message]:
        """The messages as stored, numbered without a gap in the given order; all or none.

        messages  at most 10,000. With ids of your own on all of them the call can be repeated as `add` can.
        Raises    as `add` does.
        Cost      one round trip.
        """
        if not isinstance(messages, Sequence):
            raise InvalidInputError(f"messages: expected a sequence of NewMessage, found {type(messages).__name__}")
        check_limit("messages", len(messages), MAX_BATCH_MESSAGES, minimum=0, instead="add them in several calls")
        for place, message in enumerate(messages):
            if not isinstance(message, NewMessage):
                raise InvalidInputError(f"messages[{place}]: expected a NewMessage, found {type(message).__name__}")
        now = self._now()
        rows = [self._row(m.role, m.content, m.metadata, m.token_count, m.id, m.created_at, now) for m in messages]
        if len({row["id"] for row in rows}) < len(rows):
            raise InvalidInputError("messages: two of them have the same id")
        return await self._append(chat_id, rows, now, None) if rows else []

    async def history(
        self, chat_id: str, *, limit: int = 20, offset: int = 0, before: int | None = None
    ) -> list[Message]:
        """The newest messages of a chat, oldest of them first.

        limit    1..1000 messages.
        offset   passes over so many of the newest ones, at most 1,000,000.
        before   sequence number, exclusive; None starts at the newest.
        Raises   MissingReferenceError: no such chat.  UnavailableError: the store did not answer (retryable).
        Cost     one indexed read, the same for a chat of ten messages or a million, whatever the offset.
        """
        key = _chat(chat_id)
        count = check_limit("limit", limit, MAX_HISTORY_MESSAGES)
        where = [_of_chat(key)]
        if offset:
            check_limit("offset", offset, MAX_HISTORY_OFFSET, minimum=0, instead="go on from `before`")
        if before is not None:
            where.append(Compare("sequence_number", "<", check_int("before", before, 1, MAX_INT32) - offset))
        elif offset:  # numbers have no gaps, so an offset is a number too
            last = Ref("chat_sessions", {"chat_id": key}, "message_count", -offset)
            where.append(Compare("sequence_number", "<=", last))
        rows = await self._store.read(
            Select("messages", tuple(where), ("-sequence_number",), limit=count, columns=_IN_CHAT)
        )
        if not rows:
            await self._must_exist(key)
        rows.reverse()
        return _in_chat(key, rows)

    async def iterate(self, chat_id: str, *, batch_size: int = 500) -> AsyncIterator[Message]:
        """Every message of a chat, oldest first, in constant memory; also those added while it runs.

        batch_size  1..1000 messages a read.
        Raises      MissingReferenceError: no such chat.
        """
        key, size, last = _chat(chat_id), check_limit("batch_size", batch_size, MAX_PAGE_ROWS), 0
        while True:
            rows = await self._store.read(
                Select(
                    "messages",
                    (_of_chat(key), Compare("sequence_number", ">", last)),
                    ("sequence_number",),
                    limit=size,
                    columns=_IN_CHAT,
                )
            )
            if not rows and not last:
                await self._must_exist(key)
            for message in _in_chat(key, rows):
                yield message
                last = message.sequence_number
            if len(rows) < size:
                return

    async def count(self, chat_id: str) -> int:
        """How many messages a chat has. Raises MissingReferenceError: no such chat. Cost: one indexed read."""
        return await self._must_exist(_chat(chat_id))

    async def get(self, message_id: str) -> Message | None:
        """The message with this id, or None. Cost: one indexed read."""
        key = known_id("message_id", message_id)
        rows = [] if key is None else await self._by_ids([key])
        return rows[0] if rows else None

    async def flag(self, message_id: str, abuse_flagged: bool = True) -> Message:
        """The message after its flag was set or cleared. Raises NotFoundError. Cost: two round trips."""
        if not isinstance(abuse_flagged, bool):
            raise InvalidInputError("abuse_flagged: expected True or False")
        key = known_id("message_id", message_id)
        if key is not None:
            await self._store.commit(
                (Update("messages", {"id": key}, {"abuse_flagged": abuse_flagged}, {"version": 1}),)
            )
            for message in await self._behind(self._by_ids([key]), "unknown"):
                return message
        raise NotFoundError("messages.flag: no message has this id")

    async def search(
        self,
        text: str,
        *,
        user_id: str | None = None,
        chat_id: str | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> Page[SearchHit]:
        """A page of messages that hold every word of `text`, newest first; the same on every backend.

        text     plain words, never a query language; at most 1,000 characters. Whole words in scripts with spaces, any
                 substring in scripts without; blind to case, width and Latin accents; parts joined by punctuation
                 (`repo-map`) stand next to each other. Without any word it finds nothing.
        user_id  only in chats of this user.   chat_id  only in this chat.   limit  1..1000.
        Raises   UnsupportedError: the store's search index was left out.
        """
        query = text_search.parse_query(check_text("text", text, max_chars=MAX_SEARCH_CHARS))
        count = check_limit("limit", limit, MAX_PAGE_ROWS)
        filters: list[Compare] = []
        user = None if user_id is None else known_id("user_id", user_id)
        if user is not None:
            filters.append(Compare("chat_session_id.user_id", "=", user))
        if chat_id is not None:
            filters.append(_of_chat(_chat(chat_id)))
        listing = Listing("messages", _NEWEST_FIRST, tuple(filters), extra=repr(query.patterns))
        start = listing.after(after)
        if not query.patterns or (user_id is not None and user is None):
            return page(SearchHit, [], None)
        rows = await self._store.read(Search("messages", query, tuple(filters), start, count + 1, _ANYWHERE))
        found = [build(Message, zip(_FIELDS, row, strict=True)) for row in rows[:count]]
        hits = [build(SearchHit, {"message": m, "snippet": text_search.snippet(query, m.content)}) for m in found]
        if len(rows) <= count:
            return page(SearchHit, hits, None)
        last = found[-1]
        return page(SearchHit, hits, listing.cursor([getattr(last, c.removeprefix("-")) for c in _NEWEST_FIRST]))

    # -- appending

    async def _append(
        self, chat_id: str, rows: list[dict[str, Value]], now: datetime, expected_sequence: int | None
    ) -> list[Message]:
        key, k = _chat(chat_id), len(rows)
        of_chat = {"chat_id": key}
        session = Ref("chat_sessions", of_chat, "id")
        last_at = rows[-1]["created_at"]
        ops: list[Op] = []
        if expected_sequence is not None:
            before = check_int("expected_sequence", expected_sequence, 1, MAX_INT32) - 1
            ops.append(Guard("chat_sessions", of_chat, {"message_count": before}))
        ops.append(
            Update(
                "chat_sessions",
                of_chat,
                {"updated_at": now, "last_message_at": last_at, "last_activity_at": last_at},
                {"message_count": k, "version": 1},
            )
        )
        for i, row in enumerate(rows):
            number = Ref("chat_sessions", of_chat, "message_count", i + 1 - k)
            ops.append(
                Insert("messages", {**row, "chat_session_id": session, "sequence_number": number}, ("sequence_number",))
            )
        try:
            receipt = await self._store.commit(ops)
        except (AlreadyExistsError, ConflictError) as error:
            return await self._resolve(key, rows, expected_sequence, error)
        numbers = receipt.rows[-k:]
        return [
            build(Message, {**_TEMPLATE, **row, "chat_id": key, "sequence_number": number[0]})
            for row, number in zip(rows, numbers, strict=True)
            if number is not None
        ]

    async def _resolve(
        self, key: str, rows: list[dict[str, Value]], expected_sequence: int | None, error: DalError
    ) -> list[Message]:
        """What a refused append means: it is there already (a repeat), or it is a real refusal, said in full."""
        if isinstance(error, ConflictError) and error.retryable:
            raise error
        found = await self._behind(self._by_ids([str(r["id"]) for r in rows]), error.outcome)
        stored = {m.id: m for m in found}
        if len(stored) == len(rows):
            messages = [stored[str(r["id"])] for r in rows]
            if all(m.chat_id == key and _same(m, r) for m, r in zip(messages, rows, strict=True)):
                return messages
        if stored:
            raise AlreadyExistsError(
                f"messages: the id {next(iter(stored))} belongs to another message; a repeat must be the same call",
            ) from error
        if expected_sequence is not None:
            number = await self._must_exist(key) + 1
            if number != expected_sequence:
                raise ConflictError(
                    f"chat_sessions[{key!r}] would number this message {number}, expected {expected_sequence}; "
                    "read the new messages and retry",
                ) from error
        raise error

    def _row(
        self,
        role: str,
        content: str,
        metadata: dict[str, JsonValue] | None,
        token_count: int | None,
        id: str | None,
        created_at: datetime | None,
        now: datetime,
    ) -> dict[str, Value]:
        """The columns that the caller chose, checked."""
        return {
            "id": self._new_id() if id is None else check_id("id", id),
            "role": check_text("role", role, max_chars=50, min_chars=1),
            "content": check_text("content", content),
            "metadata": check_object("metadata", metadata),
            "token_count": None if token_count is None else check_int("token_count", token_count, 0, MAX_INT32),
            "abuse_flagged": False,
            "created_at": now if created_at is None else check_time("created_at", created_at),
            "version": 1,
        }

    # -- reading

    async def _by_ids(self, ids: list[str]) -> list[Message]:
        found: list[Message] = []
        for start in range(0, len(ids), MAX_PAGE_ROWS):
            some = tuple(ids[start : start + MAX_PAGE_ROWS])
            one = Compare("id", "=", some[0]) if len(some) == 1 else Compare("id", "in", some)
            rows = await self._store.read(Select("messages", (one,), limit=len(some), columns=_ANYWHERE))
            found.extend(build(Message, zip(_FIELDS, row, strict=True)) for row in rows)
        return found

    async def _must_exist(self, key: str) -> int:
        rows = await self._store.read(
            Select("chat_sessions", (Compare("chat_id", "=", key),), limit=1, columns=("message_count",))
        )
        if not rows:
            raise MissingReferenceError(f"messages: there is no chat {key!r}; create it first")
        return rows[0][0]  # type: ignore[return-value]  # an INT column


def _chat(chat_id: str) -> str:
    return check_text("chat_id", chat_id, max_chars=255, min_chars=1)


def _of_chat(key: str) -> Compare:
    return Compare("chat_session_id", "=", Ref("chat_sessions", {"chat_id": key}, "id"))


def _in_chat(key: str, rows: Sequence[Row]) -> list[Message]:
    """Records of rows in the order of `_IN_CHAT`. A dictionary written out costs half of one made by zip."""
    return [
        build(
            Message,
            {
                "id": id,
                "chat_id": key,
                "role": role,
                "content": content,
                "metadata": metadata,
                "sequence_number": number,
                "token_count": tokens,
                "abuse_flagged": flagged,
                "created_at": created_at,
                "version": version,
            },
        )
        for id, role, content, metadata, number, tokens, flagged, created_at, version in rows
    ]


def _same(message: Message, row: dict[str, Value]) -> bool:
    return all(getattr(message, c) == row[c] for c in ("role", "content", "metadata", "token_count"))
