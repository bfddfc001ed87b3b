"""Chat sessions: `dal.chats`."""

from __future__ import annotations

from dal.errors import MissingReferenceError
from dal.models import ChatSession, Page, page
from dal.ops import Compare, Delete, JsonValue
from dal.repositories.base import Repository, known_id
from dal.tables import CHAT_SESSIONS
from dal.values import check_object, check_text

_CHANGEABLE = ("user_id", "title", "profile", "metadata", "status")


class Chats(Repository):
    """Create, find, change and delete chat sessions, by the caller's own `chat_id`."""

    table = CHAT_SESSIONS

    async def create(
        self,
        chat_id: str,
        *,
        user_id: str | None = None,
        title: str | None = None,
        profile: str = "general",
        metadata: dict[str, JsonValue] | None = None,
    ) -> ChatSession:
        """The new chat, without messages.

        chat_id  your own key, any text of 1..255 characters, unique.
        Raises   AlreadyExistsError: `chat_id` is taken.  MissingReferenceError: no such user.
        Cost     one round trip.
        """
        now = self._now()
        return await self._create(
            ChatSession,
            {
                "id": self._new_id(),
                "chat_id": chat_id,
                "user_id": None if user_id is None else self._user(user_id),
                "title": title,
                "profile": profile,
                "metadata": check_object("metadata", metadata),
                "status": "active",
                "message_count": 0,
                "created_at": now,
                "updated_at": now,
                "last_message_at": None,
                "last_activity_at": now,
                "version": 1,
            },
        )

    async def get(self, chat_id: str) -> ChatSession | None:
        """The chat with this key, or None. Cost: one indexed read."""
        return await self._one(ChatSession, "chat_id", _key(chat_id))

    async def update(self, chat_id: str, *, expected_version: int | None = None, **changes: object) -> ChatSession:
        """The chat after the change.

        changes           any of user_id, title, profile, metadata, status. `metadata` is replaced as a whole.
        expected_version  change only if the chat is still at this version; a new message raises it too.
        Raises            NotFoundError; ConflictError: another version; MissingReferenceError: no such user.
        Cost              one round trip.
        """
        if isinstance(changes.get("user_id"), str):
            changes["user_id"] = self._user(changes["user_id"])
        return await self._change(
            ChatSession, {"chat_id": _key(chat_id)}, changes, allowed=_CHANGEABLE, expected_version=expected_version
        )

    async def delete(self, chat_id: str) -> bool:
        """Deletes a chat with all its messages: True if it was there. Cost: grows with its messages."""
        receipt = await self._store.commit((Delete("chat_sessions", (Compare("chat_id", "=", _key(chat_id)),)),))
        return receipt.counts[0] > 0

    async def list(
        self,
        *,
        user_id: str | None = None,
        status: str | None = None,
        profile: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[ChatSession]:
        """A page of chats, latest activity first: the last message, or the creation of a chat without one.

        limit  1..1000.
        """
        if user_id is not None and (user_id := known_id("user_id", user_id)) is None:
            return page(ChatSession, [], None)
        filters = self._filters(user_id=user_id, status=status, profile=profile)
        return await self._page(ChatSession, ("-last_activity_at", "-id"), filters, limit=limit, after=after)

    def _user(self, user_id: object) -> str:
        key = known_id("user_id", user_id)
        if key is None:
            raise MissingReferenceError("chat_sessions.user_id: no user has this id; an id is a UUID")
        return key


def _key(chat_id: str) -> str:
    return check_text("chat_id", chat_id, max_chars=255, min_chars=1)
