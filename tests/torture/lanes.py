"""A lane: one writer through the library, which makes one call after the other on rows that are its own.

As nobody else touches these rows, what they hold at the end follows from the lane's ledger alone. Hot chats are shared:
there a lane only adds messages under ids of its own. After a call whose outcome nobody knows, the lane leaves all of
its rows as they are and begins with new ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from pydantic import BaseModel

from dal import Transaction
from dal.models import NewMessage
from dal.values import new_id
from tests.torture.file_rows import FileRows
from tests.torture.ledger import Change
from tests.torture.own_rows import TEXTS, OwnRows, changed
from tests.torture.shared import SLOTS, row_id

HOT_CHATS: Final = ("hot-0", "hot-1", "hot/2 ünï")
_MOST: Final = 12


class Lane(OwnRows):
    """One lane: the calls it makes, and how often it makes each."""

    async def step(self) -> None:
        """One call, and now and then a look at what it has done."""
        call = self._dice.choices(self._CALLS, self._WEIGHTS)[0]
        await call(self)
        if self._reads_back and self._rows and self._dice.random() < 0.3:
            await self._read_back(self._dice.choice(list(self._rows)))

    # Users -----------------------------------------------------------------------------------------------------------

    async def _create_user(self) -> None:
        if len(self._own("user")) >= _MOST:
            await self._delete_user()
            return
        clerk = self._dice.choice((None, self._key(), self._key()))
        await self._make_user(clerk)

    async def _make_user(self, clerk: str | None) -> None:
        id_ = new_id()
        values: dict[str, Any] = {
            "id": id_,
            "clerk_id": clerk,
            "name": self._text(255),
            "profile": {"n": self._document()},
        }
        await self._write(
            "users.create", [Change(("user", id_), values)], lambda: self._dal.users.create(**values), "user"
        )

    async def _update_user(self) -> None:
        key = self._any("user")
        if key is not None:
            new: dict[str, Any] = {"preferences": {"d": self._document()}, "name": self._text(255)}
            await self._write(
                "users.update",
                [Change(key, changed(self._rows[key], **new))],
                lambda: self._dal.users.update(key[1], **new),
                "user",
            )

    async def _delete_user(self) -> None:
        key = self._any("user")
        if key is None:
            return
        clerk = self._rows[key].get("clerk_id")
        changes = [Change(key, None)]
        for other, content in self._rows.items():
            if other[0] in ("memory", "file") and content["user_id"] == key[1]:
                changes += [Change(other, None), *self._hanging(other)]
            elif other[0] == "chat" and content["user_id"] == key[1]:
                changes.append(Change(other, {**content, "user_id": None}))
        changes += self._hanging(key)
        done = await self._write("users.delete", changes, lambda: self._dal.users.delete(key[1]))
        if done is False:
            self._ledger.broken(f"users.delete: the user {key[1]} was not there")
        if done and clerk is not None and self._dice.random() < 0.5:
            await self._make_user(clerk)  # another user under the same key

    async def _swap(self) -> None:
        """Two users exchange what only one of them may have."""
        users = [key for key in self._own("user") if self._rows[key].get("clerk_id")]
        if len(users) < 2:
            return
        one, two = self._dice.sample(users, 2)
        first, second = self._rows[one]["clerk_id"], self._rows[two]["clerk_id"]

        async def exchange(tx: Transaction) -> list[BaseModel]:
            await tx.users.update(one[1], clerk_id=None)
            return [
                await tx.users.update(two[1], clerk_id=first),
                await tx.users.update(one[1], clerk_id=second),
            ]

        await self._write(
            "swap",
            [
                Change(one, changed(self._rows[one], clerk_id=second)),
                Change(two, changed(self._rows[two], clerk_id=first)),
            ],
            lambda: self._dal.run_in_transaction(exchange),
            "user",
        )

    # Memory ----------------------------------------------------------------------------------------------------------

    async def _set_memory(self) -> None:
        user = self._any("user")
        if user is None:
            await self._create_user()
            return
        key = ("memory", user[1], "fact", self._dice.choice(TEXTS[:8]) + str(self._dice.randrange(4)))
        value = self._document()
        content = {"user_id": user[1], "memory_type": "fact", "key": key[3], "value": value}
        await self._write(
            "memory.set",
            [Change(key, content)],
            lambda: self._dal.memory.set(user[1], "fact", key[3], value),
            "memory",
        )

    async def _delete_memory(self) -> None:
        key = self._any("memory")
        if key is not None:
            done = await self._write(
                "memory.delete", [Change(key, None)], lambda: self._dal.memory.delete(key[1], key[2], key[3])
            )
            if done == 0:
                self._ledger.broken(f"memory.delete: {key} was not there")

    # Chats and messages ----------------------------------------------------------------------------------------------

    async def _create_chat(self) -> None:
        if len(self._own("chat")) >= _MOST:
            await self._delete_chat()
            return
        await self._make_chat(self._key())

    async def _make_chat(self, chat_id: str) -> None:
        user = self._any("user")
        values: dict[str, Any] = {
            "user_id": user and user[1],
            "title": self._text(255),
            "metadata": {"d": self._document()},
        }
        content = {"chat_id": chat_id, "profile": "general", "status": "active", **values}
        await self._write(
            "chats.create",
            [Change(("chat", chat_id), content)],
            lambda: self._dal.chats.create(chat_id, **values),
        )

    async def _update_chat(self) -> None:
        key = self._any("chat")
        if key is not None:
            title = self._text(255)
            await self._write(
                "chats.update",
                [Change(key, {**self._rows[key], "title": title})],
                lambda: self._dal.chats.update(key[1], title=title),
            )

    async def _delete_chat(self) -> None:
        key = self._any("chat")
        if key is None:
            return
        gone = [other for other in self._own("message") if self._rows[other]["chat_id"] == key[1]]
        done = await self._write(
            "chats.delete",
            [Change(key, None), *(Change(other, None) for other in gone)],
            lambda: self._dal.chats.delete(key[1]),
        )
        if done is False:
            self._ledger.broken(f"chats.delete: {key} was not there")
        if done and self._dice.random() < 0.5:
            await self._make_chat(key[1])  # another chat under the same key

    async def _add_message(self) -> None:
        chat = self._any("chat")
        if chat is None:
            await self._create_chat()
            return
        values = self._message()
        await self._write(
            "messages.add",
            [Change(("message", values["id"]), {**values, "chat_id": chat[1]})],
            lambda: self._dal.messages.add(chat[1], **values),
            "message",
        )

    async def _add_hot(self) -> None:
        place = self._dice.randrange(len(HOT_CHATS))
        values = self._message()
        key = ("message", values["id"])
        message = await self._write(
            "messages.add",
            [Change(key, {**values, "chat_id": HOT_CHATS[place]})],
            lambda: self._dal.messages.add(HOT_CHATS[place], **values),
            "message",
        )
        if message is not None and self._reads_back:
            self._raise("chats", place, message.sequence_number)
        if self._dice.random() < 0.9:
            self._rows.pop(key, None)  # never to be changed again

    async def _add_many(self) -> None:
        chat = self._any("chat")
        if chat is None:
            return
        batch = [self._message() for _ in range(self._dice.randint(2, 20))]
        await self._write(
            "messages.add_many",
            [Change(("message", one["id"]), {**one, "chat_id": chat[1]}) for one in batch],
            lambda: self._dal.messages.add_many(chat[1], [NewMessage(**one) for one in batch]),
            "message",
        )

    async def _flag(self) -> None:
        key = self._any("message")
        if key is not None:
            flag = self._dice.random() < 0.5
            content = changed(self._rows[key], abuse_flagged=flag)
            await self._write(
                "messages.flag", [Change(key, content)], lambda: self._dal.messages.flag(key[1], flag), "message"
            )

    async def _talk(self) -> None:
        """A transaction over one unit: a chat's title and two messages, or nothing."""
        chat = self._any("chat")
        if chat is None:
            return
        first, second, title = self._message(), self._message(), self._text(255)

        async def talk(tx: Transaction) -> list[BaseModel]:
            await tx.chats.update(chat[1], title=title)
            return [await tx.messages.add(chat[1], **first), await tx.messages.add(chat[1], **second)]

        await self._write(
            "talk",
            [
                Change(chat, {**self._rows[chat], "title": title}),
                *(Change(("message", one["id"]), {**one, "chat_id": chat[1]}) for one in (first, second)),
            ],
            lambda: self._dal.run_in_transaction(talk),
            "message",
        )

    # Files and the audit trail ---------------------------------------------------------------------------------------

    async def _create_file(self) -> None:
        user = self._any("user")
        if user is None:
            return
        if len(self._own("file")) >= _MOST:
            await self._delete_file()
            return
        id_ = new_id()
        values: dict[str, Any] = {
            "filename": self._text(255),
            "storage_key": self._key(),
            "file_size": self._dice.randrange(2**50),
        }
        await self._write(
            "files.create",
            [Change(("file", id_), {"id": id_, "user_id": user[1], **values})],
            lambda: self._dal.files.create(user[1], id=id_, **values),
            "file",
        )

    async def _update_file(self) -> None:
        key = self._any("file")
        if key is not None:
            metadata = {"d": self._document()}
            await self._write(
                "files.update",
                [Change(key, changed(self._rows[key], metadata=metadata))],
                lambda: self._dal.files.update(key[1], metadata=metadata),
                "file",
            )

    async def _delete_file(self) -> None:
        key = self._any("file")
        if key is not None:
            changes = [Change(key, None), *self._hanging(key)]
            done = await self._write("files.delete", changes, lambda: self._dal.files.delete(key[1]))
            if done is False:
                self._ledger.broken(f"files.delete: {key} was not there")

    async def _record(self) -> None:
        trace = self._key()
        values: dict[str, Any] = {"trace_id": trace, "message": self._text(4000), "context": {"d": self._document()}}
        await self._write(
            "audit.record",
            [Change(("log", trace), values)],
            lambda: self._dal.audit.record("torture", ip_address="192.0.2.7", **values),
            "log",
        )
        self._rows.pop(("log", trace), None)

    # Numbers that readers watch --------------------------------------------------------------------------------------

    async def _count_up(self) -> None:
        if self._slot is None:
            return
        number, slot = self._count + 1, self._slot
        user, file = row_id("user", self._process, slot), row_id("file", self._process, slot)
        if ("user", user) not in self._rows:
            values: dict[str, Any] = {"id": user, "profile": {"n": 0}}
            await self._write(
                "users.create", [Change(("user", user), values)], lambda: self._dal.users.create(**values), "user"
            )
            return
        made: BaseModel | None
        kind = self._dice.choice(("memory", "users", "files"))
        if kind == "memory":
            made = await self._write(
                "memory.set",
                [Change(("memory", user, "count", "n"), {"user_id": user, "key": "n", "value": number})],
                lambda: self._dal.memory.set(user, "count", "n", number),
                "memory",
            )
        elif kind == "users":
            made = await self._write(
                "users.update",
                [Change(("user", user), changed(self._rows["user", user], profile={"n": number}))],
                lambda: self._dal.users.update(user, profile={"n": number}),
                "user",
            )
        elif ("file", file) in self._rows:
            made = await self._write(
                "files.update",
                [Change(("file", file), changed(self._rows["file", file], metadata={"n": number}))],
                lambda: self._dal.files.update(file, metadata={"n": number}),
                "file",
            )
        else:
            values = {"filename": "n", "storage_key": file, "file_size": 0, "metadata": {"n": number}}
            made = await self._write(
                "files.create",
                [Change(("file", file), {"id": file, **values})],
                lambda: self._dal.files.create(user, id=file, **values),
                "file",
            )
        if made is not None:
            self._count = number
            if self._reads_back:
                self._raise(kind, slot, number)

    def _raise(self, kind: str, slot: int, number: int) -> None:
        if number > self._counters.get(kind, self._process, slot):
            self._counters.set(kind, self._process, slot, number)

    _CALLS: Final[tuple[Callable[[Lane], Awaitable[None]], ...]] = (
        _add_hot,
        _add_message,
        _add_many,
        _count_up,
        _set_memory,
        _delete_memory,
        _create_user,
        _update_user,
        _delete_user,
        _swap,
        _create_chat,
        _update_chat,
        _delete_chat,
        _flag,
        _talk,
        _create_file,
        _update_file,
        _delete_file,
        _record,
        FileRows._take_room,
        FileRows._upload,
        FileRows._grant,
    )
    _WEIGHTS: Final = (16, 10, 3, 12, 10, 4, 4, 4, 2, 4, 4, 3, 2, 4, 4, 3, 4, 2, 4, 6, 3, 3)


def lane_slots(number: int, lanes: int) -> range:
    """The slots of one of the lanes of a process; the first ones stand for the hot chats."""
    each = (SLOTS - len(HOT_CHATS)) // lanes
    return range(len(HOT_CHATS) + number * each, len(HOT_CHATS) + (number + 1) * each)
