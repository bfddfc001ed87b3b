"""A legacy directory as the source of a run: programs that know no library go on writing its files, until they cannot.

Each lane appends to one chat, writes another one anew in place, and replaces its user's memory. The way is one way, so
units are switched once; movers and switchers die as in any run. The programs are stopped and never killed: half a
document that nobody ends holds a fence up for good, and says so.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from dal.move.checking import check
from dal.ops import Select
from dal.store import Store
from dal.testing import nasty
from tests.torture.ledger import Change, Ledger, RowKey
from tests.torture.stopping import stopped
from tests.torture.verdict import Told, read_rows

_SESSIONS: Final = "data/chat_sessions"
_MEMORY: Final = "data/memory"
_TEXTS: Final = tuple(text for text in nasty.TEXTS.values() if "\0" not in text)


def make_directory(root: Path) -> None:
    """A directory with a few chats that nobody writes any more."""
    for name in (_SESSIONS, _MEMORY):
        (root / name).mkdir(parents=True)
    for number in range(20):
        messages = [{"role": "user", "content": f"old {number} {at}"} for at in range(5)]
        (root / _SESSIONS / f"old-{number}.json").write_text(json.dumps({"messages": messages}))


class LegacyLane:
    """One program, and what it knows of its files."""

    def __init__(self, root: Path, ledger: Ledger, dice: Random, *, name: str) -> None:
        self._sessions, self._memory = root / _SESSIONS, root / _MEMORY
        self._ledger, self._dice, self._name = ledger, dice, name
        self._number = 0
        self._document: list[str] = []

    def step(self) -> None:
        self._number += 1
        self._dice.choice((self._append, self._append, self._rewrite, self._remember))()

    def _text(self) -> str:
        return f"mark {self._number} {self._dice.choice(_TEXTS)}"

    def _append(self) -> None:
        text = self._text()
        line = json.dumps({"role": "user", "content": text}).encode() + b"\n"
        self._write(("line", f"lines-{self._name}", str(self._number)), {"text": text}, lambda: self._add(line))

    def _add(self, line: bytes) -> None:
        descriptor = os.open(
            self._sessions / f"lines-{self._name}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
        )
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def _rewrite(self) -> None:
        texts = [*self._document[-30:], self._text()]
        if self._write(("document", self._name), {"texts": texts}, lambda: self._replace(texts)):
            self._document = texts

    def _replace(self, texts: Sequence[str]) -> None:
        """In place, and not at once: whoever looks meanwhile finds half a document."""
        whole = json.dumps({"user": self._name, "messages": [{"role": "user", "content": text} for text in texts]})
        with (self._sessions / f"{self._name}.json").open("w") as file:
            file.write(whole[: len(whole) // 2])
            file.flush()
            time.sleep(0.001)
            file.write(whole[len(whole) // 2 :])

    def _remember(self) -> None:
        text = self._text()
        self._write(("fact", self._name), {"text": text}, lambda: self._put(text))

    def _put(self, text: str) -> None:
        aside = self._memory / f".{self._name}.new"
        aside.write_text(json.dumps({"facts": [text]}))
        aside.replace(self._memory / f"{self._name}.json")

    def _write(self, key: RowKey, content: Mapping[str, Any], call: Any) -> bool:
        self._ledger.intend("a file", [Change(key, content)])
        try:
            call()
        except NotADirectoryError as error:
            self._ledger.refused("fenced", str(error))
            return False
        self._ledger.acknowledge()
        return True


def legacy_program(root: Path, directory: Path, dice: Random, *, name: str, pause_s: float) -> None:
    """Writes files until it is told to stop."""
    asked = stopped()
    lane = LegacyLane(root, Ledger(directory, f"foreign-{name}"), dice, name=name)
    while not asked:
        lane.step()
        time.sleep(dice.random() * pause_s)


async def compare(told: Told, source: Store, target: Store) -> list[str]:
    """Where the target does not hold what the programs were told."""
    chats = {row[0]: str(row[1]) for row in await target.read(Select("chat_sessions", columns=("id", "chat_id")))}
    said: dict[str, list[str]] = {name: [] for name in chats.values()}
    columns = ("chat_session_id", "content")
    for chat, content in await target.read(Select("messages", columns=columns, order=("sequence_number",))):
        said[chats[chat]].append(str(content))
    users = {row[0]: str(row[1]) for row in await target.read(Select("users", columns=("id", "clerk_id")))}
    facts = {users[row[0]]: row[1] for row in await target.read(Select("user_memory", columns=("user_id", "value")))}
    problems: list[str] = []
    lines: dict[str, list[str]] = {}
    for key, contents in told.rows.items():
        allowed = [content for content in contents if content is not None]
        if key[0] == "line":
            lines.setdefault(key[1], []).append(allowed[-1]["text"])
        elif key[0] == "document":
            if said.get(key[1]) not in [content["texts"] for content in allowed]:
                problems.append(f"WRONG: document {key[1]}: {said.get(key[1])!r:.300}")
        elif facts.get(key[1]) not in [content["text"] for content in allowed]:
            problems.append(f"WRONG: memory of {key[1]}: {facts.get(key[1])!r:.200}")
    for name, texts in lines.items():
        if said.get(name, []) != texts:
            missing = [text for text in texts if text not in said.get(name, [])]
            problems.append(f"WRONG: {name}: {len(said.get(name, []))} of {len(texts)} lines; missing {missing[:3]!r}")
    report = await check(source, target, mode="deep", pause_s=0.05)
    if report.differences:
        problems.append(f"the check reports {report.differences} differences")
    if len(await read_rows(target, "messages")) < 100:
        problems.append("LOST: what was there before the move")
    return problems
