"""A lane of somebody else's program: raw SQL on one store, on rows of its own and on hot chats.

It knows of no move. What it writes while that store is not the primary must be refused; what was not refused counts.
"""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from dal.testing import nasty
from dal.values import new_id
from tests.torture.lanes import HOT_CHATS
from tests.torture.ledger import Change, Ledger, RowKey, plain
from tests.torture.programs import LostError, RefusedError, SqlProgram, statements_of_a_message

_TEXTS: Final = tuple(nasty.TEXTS.values())
_DOCUMENTS: Final[tuple[dict[str, Any], ...]] = (
    {"a": 1, "b": [None, True, 1.5]},
    {},
    {"é": "日本"},
    {"": {"n": 2**53}},
)
_MOST: Final = 10


class ForeignLane:
    """One lane of raw SQL."""

    def __init__(self, program: SqlProgram, ledger: Ledger, dice: Random, *, name: str) -> None:
        self._program = program
        self._ledger = ledger
        self._dice = dice
        self._name = name
        self._made = 0
        self._rows: dict[RowKey, dict[str, Any]] = {}

    def step(self) -> None:
        """One transaction."""
        call = self._dice.choice(
            (self._user, self._user, self._change_user, self._drop_user, self._memory, self._memory, self._forget)
            + (self._hot,) * 4
            + (self._log, self._chat, self._swap, self._drop_chat)
        )
        call()

    def _user(self) -> None:
        if len(self._of("user")) >= _MOST:
            self._drop_user()
            return
        row = self._user_row()
        self._run("INSERT users", [Change(("user", row["id"]), row)], self._program.insert("users", row))

    def _user_row(self) -> dict[str, Any]:
        now = datetime.now(UTC)
        return {
            "id": new_id(),
            "clerk_id": self._key(),
            "name": self._dice.choice(_TEXTS),
            "profile": self._dice.choice(_DOCUMENTS),
            "preferences": {},
            "status": "active",
            "created_at": now,
            "updated_at": now,
            "version": 1,
        }

    def _change_user(self) -> None:
        if (key := self._any("user")) is not None:
            name = self._dice.choice(_TEXTS)
            sql = f"UPDATE users SET name = {self._program.literal(name)} WHERE id = '{key[1]}'"
            self._run("UPDATE users", [Change(key, {**self._rows[key], "name": name})], sql)

    def _drop_user(self) -> None:
        if (key := self._any("user")) is not None:
            gone = [other for other in self._of("memory") if other[1] == key[1]]
            changes = [Change(other, None) for other in (key, *gone)]
            self._run("DELETE users", changes, f"DELETE FROM users WHERE id = '{key[1]}'")

    def _swap(self) -> None:
        users = self._of("user")
        if len(users) < 2:
            return
        one, two = self._dice.sample(users, 2)
        first, second = self._rows[one]["clerk_id"], self._rows[two]["clerk_id"]
        literal = self._program.literal
        self._run(
            "swap",
            [
                Change(one, {**self._rows[one], "clerk_id": second}),
                Change(two, {**self._rows[two], "clerk_id": first}),
            ],
            f"UPDATE users SET clerk_id = NULL WHERE id = '{one[1]}'",
            f"UPDATE users SET clerk_id = {literal(first)} WHERE id = '{two[1]}'",
            f"UPDATE users SET clerk_id = {literal(second)} WHERE id = '{one[1]}'",
        )

    def _memory(self) -> None:
        if (user := self._any("user")) is None:
            return
        now, name = datetime.now(UTC), f"k{self._dice.randrange(5)}"
        key = ("memory", user[1], "fact", name)
        row: dict[str, Any] = {
            "id": new_id(),
            "user_id": user[1],
            "memory_type": "fact",
            "key": name,
            "value": self._dice.choice(_DOCUMENTS),
            "created_at": now,
            "updated_at": now,
            "version": 1,
        }
        if self._program.replace and self._dice.random() < 0.5:
            self._run(
                "REPLACE user_memory",
                [Change(key, row)],
                self._program.insert("user_memory", row, verb=self._program.replace),
            )
            return
        # A row that is there keeps its id.
        content = {name: value for name, value in row.items() if name in ("user_id", "memory_type", "key", "value")}
        sql = self._program.insert("user_memory", row)
        sql += " ON CONFLICT (user_id, memory_type, key) DO UPDATE SET value = excluded.value"
        self._run("UPSERT user_memory", [Change(key, content)], sql)

    def _forget(self) -> None:
        if (key := self._any("memory")) is not None:
            where = f"user_id = '{key[1]}' AND memory_type = 'fact' AND key = {self._program.literal(key[3])}"
            self._run("DELETE user_memory", [Change(key, None)], f"DELETE FROM user_memory WHERE {where}")

    def _hot(self) -> None:
        chat = self._dice.choice(HOT_CHATS)
        row = self._message_row()
        change = Change(("message", row["id"]), {**row, "chat_id": chat})
        self._run("INSERT messages", [change], *statements_of_a_message(self._program, chat, row), keeps=False)

    def _message_row(self) -> dict[str, Any]:
        return {
            "id": new_id(),
            "role": "user",
            "content": self._dice.choice(_TEXTS),
            "metadata": self._dice.choice(_DOCUMENTS),
            "abuse_flagged": False,
            "created_at": datetime.now(UTC),
            "version": 1,
        }

    def _chat(self) -> None:
        if len(self._of("chat")) >= _MOST:
            self._drop_chat()
            return
        now, message = datetime.now(UTC), self._message_row()
        row: dict[str, Any] = {
            "id": new_id(),
            "chat_id": self._key(),
            "title": self._dice.choice(_TEXTS),
            "profile": "general",
            "metadata": {},
            "status": "active",
            "message_count": 0,
            "created_at": now,
            "updated_at": now,
            "last_activity_at": now,
            "version": 1,
        }
        content = {name: row[name] for name in ("chat_id", "title", "profile", "metadata", "status")}
        self._run(
            "INSERT chat_sessions",
            [
                Change(("chat", row["chat_id"]), content),
                Change(("message", message["id"]), {**message, "chat_id": row["chat_id"]}),
            ],
            self._program.insert("chat_sessions", row),
            *statements_of_a_message(self._program, row["chat_id"], message),
        )

    def _drop_chat(self) -> None:
        if (key := self._any("chat")) is not None:
            gone = [other for other in self._of("message") if self._rows[other]["chat_id"] == key[1]]
            sql = f"DELETE FROM chat_sessions WHERE chat_id = {self._program.literal(key[1])}"
            self._run("DELETE chat_sessions", [Change(other, None) for other in (key, *gone)], sql)

    def _log(self) -> None:
        row: dict[str, Any] = {
            "id": new_id(),
            "action": "foreign",
            "level": "info",
            "message": self._dice.choice(_TEXTS),
            "context": self._dice.choice(_DOCUMENTS),
            "trace_id": self._key(),
            "created_at": datetime.now(UTC),
        }
        change = Change(("log", row["trace_id"]), row)
        self._run("INSERT system_logs", [change], self._program.insert("system_logs", row), keeps=False)

    def _run(self, what: str, changes: list[Change], *statements: str, keeps: bool = True) -> None:
        self._ledger.intend(what, [Change(key, content and plain(content)) for key, content in changes])
        try:
            count = self._program.run(*statements)
        except RefusedError as error:
            self._ledger.refused(*error.args)
        except LostError as error:
            self._ledger.lost("lost", str(error))
            self._ledger.forget()
            self._rows = {}
        else:
            if count == 0:
                self._changed_nothing(what, changes)
                return
            self._ledger.acknowledge()
            for key, content in changes:
                if content is None:
                    self._rows.pop(key, None)
                elif keeps:
                    self._rows[key] = dict(content)

    def _changed_nothing(self, what: str, changes: list[Change]) -> None:
        """Of a hot chat that the move has not brought yet nothing is seen here; one's own rows must be there."""
        if changes[0].content is not None and changes[0].content.get("chat_id") in HOT_CHATS:
            self._ledger.refused("absent", "no such chat")
        else:
            self._ledger.acknowledge()
            self._ledger.broken(f"{what}: no row was changed")

    def _of(self, entity: str) -> list[RowKey]:
        return [key for key in self._rows if key[0] == entity]

    def _any(self, entity: str) -> RowKey | None:
        found = self._of(entity)
        return self._dice.choice(found) if found else None

    def _key(self) -> str:
        self._made += 1
        return f"{self._name}.{self._made}"
