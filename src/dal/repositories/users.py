"""Users: `dal.users`."""

from __future__ import annotations

from dal.models import Page, User
from dal.ops import Compare, Delete, JsonValue, Update
from dal.repositories.base import Repository, known_id
from dal.tables import USERS
from dal.values import check_object, check_text

_CHANGEABLE = ("clerk_id", "email", "name", "profile", "preferences", "status", "last_active_at")


class Users(Repository):
    """Create, find, change and delete users."""

    table = USERS

    async def create(
        self,
        *,
        clerk_id: str | None = None,
        email: str | None = None,
        name: str | None = None,
        profile: dict[str, JsonValue] | None = None,
        preferences: dict[str, JsonValue] | None = None,
        status: str = "active",
        id: str | None = None,
    ) -> User:
        """The new user.

        clerk_id  your own key for this user, 1..255 characters, unique; None for none.
        id        a UUID of your own making, which makes a repeat of the call harmless; None makes one.
        Raises    AlreadyExistsError: `clerk_id` or `id` is taken.  InvalidInputError: a value breaks a rule.
        Cost      one round trip.
        """
        now = self._now()
        return await self._create(
            User,
            {
                "id": self._new_id() if id is None else id,
                "clerk_id": clerk_id,
                "email": email,
                "name": name,
                "profile": check_object("profile", profile),
                "preferences": check_object("preferences", preferences),
                "status": status,
                "created_at": now,
                "updated_at": now,
                "last_active_at": None,
                "version": 1,
            },
            given_id=id is not None,
        )

    async def get(self, user_id: str) -> User | None:
        """The user with this id, or None. Cost: one indexed read."""
        key = known_id("user_id", user_id)
        return None if key is None else await self._one(User, "id", key)

    async def get_by_clerk_id(self, clerk_id: str) -> User | None:
        """The user with this key of yours, or None. Cost: one indexed read."""
        return await self._one(User, "clerk_id", check_text("clerk_id", clerk_id, max_chars=255, min_chars=1))

    async def update(self, user_id: str, *, expected_version: int | None = None, **changes: object) -> User:
        """The user after the change.

        changes           any of clerk_id, email, name, profile, preferences, status, last_active_at. A document is
                          replaced as a whole.
        expected_version  change only if the user is still at this version.
        Raises            NotFoundError; ConflictError: another version; AlreadyExistsError: `clerk_id` is taken.
        Cost              one round trip.
        """
        key = known_id("user_id", user_id)
        if key is None:
            raise self._not_found({"id": user_id})
        return await self._change(User, {"id": key}, changes, allowed=_CHANGEABLE, expected_version=expected_version)

    async def touch(self, user_id: str) -> None:
        """Sets `last_active_at` to now. Raises NotFoundError. Cost: one round trip."""
        key, now = known_id("user_id", user_id), self._now()
        if key is not None:
            update = Update("users", {"id": key}, {"last_active_at": now, "updated_at": now}, {"version": 1})
            if (await self._store.commit((update,))).counts[0]:
                return
        raise self._not_found({"id": user_id})

    async def delete(self, user_id: str) -> bool:
        """Deletes a user: True if it was there. Memory and files' rows go with it; chats stay, with `user_id=None`."""
        key = known_id("user_id", user_id)
        if key is None:
            return False
        receipt = await self._store.commit((Delete("users", (Compare("id", "=", key),)),))
        return receipt.counts[0] > 0

    async def list(
        self, *, status: str | None = None, email: str | None = None, limit: int = 50, after: str | None = None
    ) -> Page[User]:
        """A page of users, newest first. limit: 1..1000."""
        filters = self._filters(status=status, email=email)
        return await self._page(User, ("-created_at", "-id"), filters, limit=limit, after=after)
