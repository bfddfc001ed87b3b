"""A repeatable history of writes, the same for the store under test and for the interpreter it is compared with.

Step n of a history is a function of its seed and n alone. Every step leaves its number in the store, in the same commit
as its writes, so that whoever opens the store knows how far it has come.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from dal.errors import DalError
from dal.ops import Compare, Delete, Insert, Op, Ref, Row, Select, Update, Upsert
from dal.store import ReadCommit, Store
from dal.testing import rows

_PROGRESS_ID = 9_000
_LOOKUP = ("user_id", "memory_type", "key")


def step(seed: int, number: int) -> list[Op]:
    """The operations of one step: any of them may be refused, the same way everywhere."""
    dice = random.Random(f"{seed}-{number}")
    ops: list[Op] = []
    for _ in range(dice.choice((1, 1, 2, 5))):
        ops += _write(dice)
    return ops


def _write(dice: random.Random) -> Sequence[Op]:
    user, chat, key = dice.randrange(8), 100 + dice.randrange(6), f"chat-{dice.randrange(5)}"
    message, log = 1000 + dice.randrange(80), 400 + dice.randrange(40)
    by_key = {"chat_id": key}
    match dice.choice("uccaaaaaaaimmfdxrrUkkFlllLX"):
        case "u":
            return [Insert("users", rows.user(user, clerk_id=dice.choice((None, "a", "b"))))]
        case "c":
            return [Insert("chat_sessions", rows.chat(chat, chat_id=key, title="t\u2028t"))]
        case "a":
            number = Ref("chat_sessions", by_key, "message_count")
            row = rows.message(message, 0, sequence_number=number, content="\u0085\u2028x" * dice.randrange(90))
            row["chat_session_id"] = Ref("chat_sessions", by_key, "id")
            return [Update("chat_sessions", by_key, add={"message_count": 1}), Insert("messages", row)]
        case "i":
            return [Insert("messages", rows.message(message, chat, sequence_number=dice.randrange(1, 40)))]
        case "m":
            return [Update("messages", {"id": rows.row_id(message)}, {"abuse_flagged": True}, {"version": 1})]
        case "f":
            return [Insert("files", rows.file(300 + user, dice.randrange(8)))]
        case "d":
            return [Delete("messages", (Compare("id", "=", rows.row_id(message)),))]
        case "x":
            return [Delete("chat_sessions", (Compare("chat_id", "=", key),))]
        case "r":
            name = dice.choice((key, "Chat-1", "a/b", "ünï"))
            return [Update("chat_sessions", {"id": rows.row_id(chat)}, {"chat_id": name})]
        case "U":
            return [Delete("users", (Compare("id", "=", rows.row_id(user)),))]
        case "k":
            item = rows.memory(200 + user, dice.randrange(8), value={"n": dice.random()})
            return [Upsert("user_memory", item, _LOOKUP, ("value",), {"version": 1})]
        case "F":
            return [Delete("files", (Compare("status", "=", "active"),))]
        case "l":
            return [Insert("system_logs", rows.log(log, created_at=rows.moment(86_400 * dice.randrange(4))))]
        case "L":
            return [Update("system_logs", {"id": rows.row_id(log)}, {"level": "error"})]
        case _:
            return [Delete("system_logs", (Compare("created_at", "<", rows.moment(86_400)),))]


async def begin(store: ReadCommit) -> None:
    """What every history starts with."""
    await store.commit([Insert("users", rows.user(_PROGRESS_ID)), _progress(0)])


async def take(store: Store, seed: int, number: int) -> None:
    """Carries out one step; what is refused leaves only the step's number."""
    ops = step(seed, number)
    try:
        if number % 7 == 0:
            async with store.transaction() as transaction:
                for op in ops:
                    await transaction.commit([op])
                await transaction.commit([_progress(number)])
        else:
            await store.commit([*ops, _progress(number)])
    except DalError:
        await store.commit([_progress(number)])


async def progress(store: ReadCommit) -> int:
    """The number of the last step that the store holds; -1 for a store without a history."""
    found: list[Row] = await store.read(
        Select("user_memory", (Compare("user_id", "=", rows.row_id(_PROGRESS_ID)),), columns=("value",))
    )
    number = found[0][0] if found else -1
    assert isinstance(number, int)
    return number


def _progress(number: int) -> Upsert:
    return Upsert("user_memory", rows.memory(_PROGRESS_ID, _PROGRESS_ID, value=number), _LOOKUP, ("value",))
