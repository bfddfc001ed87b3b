"""The rows of one lane: what is written to them goes into its ledger, and must be there when the lane looks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel

from dal import DataAccess
from dal.errors import DalError
from dal.testing import nasty
from dal.values import new_id
from tests.torture.file_rows import FileRows
from tests.torture.ledger import Change, Content, Ledger, RowKey, plain
from tests.torture.shared import Counters, row_id

T = TypeVar("T")

TEXTS: Final = tuple(nasty.TEXTS.values())
#: Long ones would fill ledgers and add nothing; the deepest would be too deep inside another.
_DOCUMENTS: Final = tuple(
    document for name, document in nasty.DOCUMENTS.items() if name not in ("deep", "long array", "long text")
)


class OwnRows(FileRows):
    """The rows of a lane, what they hold as it was told, and what it may write to them next.

    reads_back  the lane knows where its rows live, so what it was told must be there when it looks.
    process     of the slots of Counters that are the lane's; `slots` are its own among them.
    """

    def __init__(
        self,
        dal: DataAccess,
        ledger: Ledger,
        counters: Counters,
        dice: Random,
        *,
        name: str,
        process: int,
        slots: range,
        reads_back: bool,
    ) -> None:
        self._dal = dal
        self._ledger = ledger
        self._counters = counters
        self._dice = dice
        self._name = name
        self._process = process
        self._slots = iter(slots)
        self._reads_back = reads_back
        self._made = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._rows: dict[RowKey, dict[str, Any]] = {}
        self._slot = next(self._slots, None)
        self._count = 0

    # One call --------------------------------------------------------------------------------------------------------

    async def _write(
        self, what: str, changes: Sequence[Change], call: Callable[[], Awaitable[T]], entity: str | None = None
    ) -> T | None:
        """What the call returned, or None where it failed; the ledger is kept.

        entity  the call returns records of this entity: they are what the rows must hold.
        """
        self._ledger.intend(what, [Change(key, content and plain(content)) for key, content in changes])
        try:
            result = await call()
        except DalError as error:
            self._ledger.fail(error)
            if error.outcome == "unknown":
                self._ledger.forget()
                self._begin_anew()
            return None
        except Exception as error:  # nothing else may come out of the library
            self._ledger.broken(f"{what}: {type(error).__name__}: {error}")
            self._ledger.forget()
            self._begin_anew()
            return None
        told = {} if entity is None else _told(entity, result)
        known = [Change(key, told.get(key, content)) for key, content in changes]
        self._ledger.acknowledge(known if told else None)
        for key, content in known:
            if content is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = dict(content)
        return result

    async def _read_back(self, key: RowKey) -> None:
        """Looks at a row through the library: it must be as the last call left it."""
        try:
            found = await self._read(key)
        except DalError as error:
            self._ledger.read_failed(error)
            return
        expected = plain(self._rows[key])
        if key[0] == "chat":
            del expected["user_id"]  # set to null with a user on the other side, a moment later if that side is away
        if found is None:
            self._ledger.broken(f"{key} is not there, though its write was acknowledged")
        elif wrong := [name for name, value in expected.items() if found.get(name, value) != value]:
            self._ledger.broken(f"{key}: {', '.join(wrong)}: not as acknowledged")

    async def _read(self, key: RowKey) -> dict[str, Any] | None:
        found: BaseModel | None
        match key[0]:
            case "user":
                found = await self._dal.users.get(key[1])
            case "chat":
                found = await self._dal.chats.get(key[1])
            case "message":
                found = await self._dal.messages.get(key[1])
            case "file":
                found = await self._dal.files.get(key[1])
            case "quota" | "upload" | "part" | "grant":
                return await self._read_row(key)
            case _:
                found = await self._dal.memory.get_item(key[1], key[2], key[3])
        return None if found is None else plain(found.model_dump())

    # Choices ---------------------------------------------------------------------------------------------------------

    def _own(self, entity: str) -> list[RowKey]:
        """Rows of this lane, without those that count."""
        counting = None if self._slot is None else row_id("user", self._process, self._slot)
        return [
            key
            for key, row in self._rows.items()
            if key[0] == entity and (counting is None or counting not in (key[1], row.get("user_id")))
        ]

    def _any(self, entity: str) -> RowKey | None:
        found = self._own(entity)
        return self._dice.choice(found) if found else None

    def _key(self) -> str:
        """A key that nobody else has."""
        self._made += 1
        return f"{self._name}.{self._made}.{self._dice.choice(TEXTS)}"[:255]

    def _message(self) -> dict[str, Any]:
        return {"id": new_id(), "role": "user", "content": self._text(5000), "metadata": {"d": self._document()}}

    def _text(self, max_chars: int) -> str:
        return (self._dice.choice(TEXTS) * self._dice.choice((1, 1, 1, 40)))[:max_chars]

    def _document(self) -> Any:
        return self._dice.choice(_DOCUMENTS)


def _told(entity: str, result: object) -> dict[RowKey, Content]:
    """The rows that a call returned, by their keys."""
    records: list[BaseModel] = result if isinstance(result, list) else [cast(BaseModel, result)]
    told: dict[RowKey, Content] = {}
    for record in records:
        row = plain(record.model_dump())
        if entity == "memory":
            told["memory", row["user_id"], row["memory_type"], row["key"]] = row
        else:
            told[entity, row["trace_id" if entity == "log" else "id"]] = row
    return told


def changed(row: dict[str, Any], **new: object) -> dict[str, Any]:
    """The row after a change, as far as it can be known before: its version and times are the call's."""
    return {**_without_times(row), **new}


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("version", "updated_at")}
