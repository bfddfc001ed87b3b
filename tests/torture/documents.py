"""A lane of somebody else's program on a file store: it rewrites documents and adds lines itself, knowing no library.

Its user, memory and chat are made through the library first, as an older deployment would have; from then on it only
touches their files. Where a directory was moved away, or a file stands in its place, it is refused.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from dal.errors import DalError
from dal.factory import create_data_access
from dal.testing import nasty
from dal.values import new_id
from tests.torture.ledger import Change, Ledger, RowKey

#: Chats with this beginning get lines whose numbers no library gave; their count in the chat's row is left alone.
LOOSE: Final = "loose-"
_TEXTS: Final = tuple(nasty.TEXTS.values())
_NAME_CHARS: Final = 255  # as many as a name may have: such a program keeps to what its own store takes
_PATIENCE_S: Final = 20.0


class DocumentLane:
    """One lane of files."""

    def __init__(self, directory: Path, ledger: Ledger, dice: Random, *, name: str) -> None:
        self._directory = directory
        self._ledger = ledger
        self._dice = dice
        self._name = f"{LOOSE}{name}"
        self._number = 0

    async def begin(self, url: str) -> bool:
        """Makes the rows; whether that was possible, for the store may live elsewhere by now."""
        self._number += 1
        user, chat, first = new_id(), f"{self._name}-{self._number}", new_id()
        self._chat = chat
        self._user: RowKey = ("user", user)
        self._item: RowKey = ("memory", user, "fact", "mark")
        changes = [
            Change(self._user, {"id": user}),
            Change(self._item, {"key": "mark"}),
            Change(("chat", chat), {"chat_id": chat}),
            Change(("message", first), {"content": "first", "chat_id": chat}),
        ]
        dal = create_data_access(url, auto_migrate=False)
        try:
            await dal.open()
        except DalError as error:
            if not error.retryable:
                raise
            return False  # its disk may be full just now
        async with dal:
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: dal.users.create(id=user, name="mark 0"),
                lambda: dal.memory.set(user, "fact", "mark", 0),
                lambda: dal.chats.create(chat),
                lambda: dal.messages.add(chat, "user", "first", id=first),
            ]
            for change, call in zip(changes, calls, strict=True):
                self._ledger.intend("making rows", [change])
                try:
                    await call()
                except DalError as error:
                    self._ledger.fail(error)
                    return False
                self._ledger.acknowledge()
        return self._find(user, chat)

    def _find(self, user: str, chat: str) -> bool:
        """Waits until the documents are written: a commit is in the journal first."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            users = list(self._directory.glob(f"users/*/{user}.json"))
            memories = list(self._directory.glob(f"memory/*/{user}.json"))
            lines = list(self._directory.glob(f"chats/*/{chat}.jsonl"))
            if users and memories and lines and (text := lines[0].read_text()):
                self._users, self._memories, self._lines = users[0], memories[0], lines[0]
                self._template: dict[str, Any] = json.loads(text.splitlines()[0])
                return True
            time.sleep(0.05)
        return False

    def step(self) -> None:
        """One file."""
        self._number += 1
        self._dice.choice((self._rename, self._remember, self._say))()

    def _rename(self) -> None:
        name = f"mark {self._number} {self._dice.choice(_TEXTS)}"[:_NAME_CHARS]
        self._write(Change(self._user, {"name": name}), lambda: self._replace(self._users, name))

    def _remember(self) -> None:
        self._write(Change(self._item, {"value": self._number}), lambda: self._replace(self._memories, None))

    def _say(self) -> None:
        id_, content = new_id(), f"line {self._number} {self._dice.choice(_TEXTS)}"
        row = self._template | {"id": id_, "sequence_number": 1_000 + self._number, "content": content}
        self._write(Change(("message", id_), {"content": content, "chat_id": self._chat}), lambda: self._append(row))

    def _replace(self, path: Path, name: str | None) -> None:
        """As careful programs do: beside it, then renamed."""
        document = json.loads(path.read_text())
        if name is None:
            document["items"][0]["value"] = self._number
        else:
            document["name"] = name
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            aside.write_text(json.dumps(document))
        except OSError:  # the disk is full
            aside.unlink(missing_ok=True)
            raise
        aside.replace(path)

    def _append(self, row: dict[str, Any]) -> None:
        descriptor = os.open(self._lines, os.O_WRONLY | os.O_APPEND)
        try:
            left = json.dumps(row).encode() + b"\n"
            is_begun = False
            while left:
                try:
                    left = left[os.write(descriptor, left) :]
                    is_begun = True
                except OSError as error:
                    if not is_begun or error.errno != errno.ENOSPC:
                        raise
                    time.sleep(0.01)  # half a line is on the full disk: the rest will find room
        finally:
            os.close(descriptor)

    def _write(self, change: Change, call: Callable[[], None]) -> None:
        self._ledger.intend("a file", [change])
        try:
            call()
        except (NotADirectoryError, FileNotFoundError) as error:
            self._ledger.refused("fenced", type(error).__name__)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._ledger.refused("disk full", str(error))
        else:
            self._ledger.acknowledge()
