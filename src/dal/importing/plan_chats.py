"""The plan of a batch of conversations: which chats are new, which have grown, which are there already."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, cast

from dal.importing.conversations import Conversation
from dal.importing.ids import chat_session_id, message_ids
from dal.importing.plan import Plan
from dal.importing.users import Users
from dal.ops import Compare, Guard, Insert, Op, Row, Select, Update
from dal.store import ReadCommit

_MESSAGE_COLUMNS = ("chat_session_id", "sequence_number", "role", "content")


class Stored(NamedTuple):
    """A chat as the store has it."""

    id: str
    chat_id: str
    message_count: int


async def plan_conversations(store: ReadCommit, users: Users, batch: Sequence[Conversation]) -> Plan:
    """The plan of a batch in which every chat occurs once. Two to four reads."""
    stored = await _stored_chats(store, [c.chat_id for c in batch])
    begun = await _stored_messages(store, [(stored[c.chat_id], c) for c in batch if c.chat_id in stored])
    met: dict[str, datetime] = {}
    for conversation in batch:
        if conversation.user is not None and conversation.chat_id not in stored:
            met.setdefault(conversation.user, conversation.created_at)
    ids = await users.ensure(met)
    chat_ops: list[Op] = []
    message_ops: list[Op] = []
    conflicts: dict[int, str] = {}
    chats = grown = unchanged = 0
    for conversation in batch:
        chat = stored.get(conversation.chat_id)
        if chat is None:
            user_id = None if conversation.user is None else ids[conversation.user]
            session_id = chat_session_id(conversation.chat_id, conversation.began)
            chat_ops.append(_insert_chat(conversation, session_id, user_id))
            message_ops += _insert_messages(conversation, session_id, 0)
            chats += 1
            continue
        same = _same_messages(conversation, begun.get(chat.id, ()))
        if same < min(chat.message_count, len(conversation.messages)):
            conflicts[conversation.line] = (
                f"the chat is stored with other content: message {same + 1} differs; nothing of this record was written"
            )
        elif chat.message_count >= len(conversation.messages):
            unchanged += 1
        else:
            chat_ops += _grow_chat(conversation, chat)
            message_ops += _insert_messages(conversation, chat.id, chat.message_count)
            grown += 1
    return Plan(
        [*chat_ops, *message_ops],
        unchanged,
        conflicts,
        chats=chats,
        grown=grown,
        messages=len(message_ops),
    )


async def _stored_chats(store: ReadCommit, chat_ids: list[str]) -> dict[str, Stored]:
    query = Select(
        "chat_sessions", (Compare("chat_id", "in", tuple(chat_ids)),), columns=("id", "chat_id", "message_count")
    )
    return {str(row[1]): Stored._make(cast("tuple[str, str, int]", row)) for row in await store.read(query)}


async def _stored_messages(store: ReadCommit, chats: list[tuple[Stored, Conversation]]) -> dict[str, list[Row]]:
    """Role and content of the first messages of each chat, as many as its record has, by the chat's id."""
    found: dict[str, list[Row]] = {}
    whole = [chat.id for chat, record in chats if 0 < chat.message_count <= len(record.messages)]
    if whole:
        for row in await store.read(
            Select(
                "messages",
                (Compare("chat_session_id", "in", tuple(whole)),),
                ("chat_session_id", "sequence_number"),
                columns=_MESSAGE_COLUMNS,
            )
        ):
            found.setdefault(cast(str, row[0]), []).append(row)
    for chat, record in chats:  # one that went on after it was imported may be of any length
        if chat.message_count > len(record.messages) > 0:
            found[chat.id] = await store.read(
                Select(
                    "messages",
                    (
                        Compare("chat_session_id", "=", chat.id),
                        Compare("sequence_number", "<=", len(record.messages)),
                    ),
                    ("sequence_number",),
                    columns=_MESSAGE_COLUMNS,
                )
            )
    return found


def _same_messages(conversation: Conversation, rows: Sequence[Row]) -> int:
    """How many messages, from the first on, are stored as the record has them."""
    for index, (message, row) in enumerate(zip(conversation.messages, rows, strict=False)):
        if row[1:] != (index + 1, message.role, message.content):
            return index
    return min(len(conversation.messages), len(rows))


def _insert_chat(conversation: Conversation, session_id: str, user_id: str | None) -> Insert:
    last = conversation.messages[-1].created_at if conversation.messages else None
    active = conversation.created_at if last is None else last
    return Insert(
        "chat_sessions",
        {
            "id": session_id,
            "chat_id": conversation.chat_id,
            "user_id": user_id,
            "title": conversation.title,
            "profile": "general",
            "metadata": conversation.metadata,
            "status": "active",
            "message_count": len(conversation.messages),
            "created_at": conversation.created_at,
            "updated_at": active,
            "last_message_at": last,
            "last_activity_at": active,
            "version": 1,
        },
    )


def _grow_chat(conversation: Conversation, chat: Stored) -> list[Op]:
    last = conversation.messages[-1].created_at
    return [
        Guard("chat_sessions", {"id": chat.id}, {"message_count": chat.message_count}),
        Update(
            "chat_sessions",
            {"id": chat.id},
            {"last_message_at": last, "last_activity_at": last, "updated_at": last},
            {"message_count": len(conversation.messages) - chat.message_count, "version": 1},
        ),
    ]


def _insert_messages(conversation: Conversation, session_id: str, have: int) -> list[Insert]:
    """The messages behind the first `have`. The other loop that decides how fast an import is."""
    began, chat_id = conversation.began, conversation.chat_id
    return [
        Insert(
            "messages",
            {
                "id": id,
                "chat_session_id": session_id,
                "role": message.role,
                "content": message.content,
                "metadata": message.metadata,
                "sequence_number": number,
                "token_count": None,
                "abuse_flagged": False,
                "created_at": message.created_at,
                "version": 1,
            },
            (),
            True,
        )
        for number, (id, message) in enumerate(
            zip(message_ids(chat_id, began, have + 1), conversation.messages[have:], strict=False), have + 1
        )
    ]
