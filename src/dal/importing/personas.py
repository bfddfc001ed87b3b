"""One line of the user memory format as items ready to be written.

`{"user", "source", "facts": [...], "profile": {...}, …}`: `user` must be there, and every other field becomes items
whose memory type is the field's name. An object gives one item for each of its keys; a list one for each entry, with
keys `0001`, `0002`, …; anything else one item with the key `value`. `source` is kept as the item `source` of type
`import`. Null fields give nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from dal.errors import InvalidInputError
from dal.ops import JsonValue
from dal.tables import USER_MEMORY, USERS
from dal.values import check_json, check_text

_CLERK_ID: Final = USERS.by_name["clerk_id"]
_TYPE: Final = USER_MEMORY.by_name["memory_type"]
_KEY: Final = USER_MEMORY.by_name["key"]


class SourceItem(NamedTuple):
    memory_type: str
    key: str
    value: JsonValue


class Persona(NamedTuple):
    """What is remembered of one user. Every value has passed the boundary."""

    line: int
    size_bytes: int
    replaced: int
    user: str
    items: list[SourceItem]

    @property
    def key(self) -> str:
        return self.user

    @property
    def rows(self) -> int:
        return len(self.items)


def read_persona(fields: dict[str, JsonValue], *, line: int, size_bytes: int, replaced: int) -> Persona:
    """The persona in these fields. Raises InvalidInputError naming the field, never its content."""
    if "user" not in fields:
        raise InvalidInputError("user: missing")
    user = check_text("user", fields["user"], max_chars=_CLERK_ID.max_chars, min_chars=_CLERK_ID.min_chars)
    items: list[SourceItem] = []
    for name, value in fields.items():
        if name == "user" or value is None:
            continue
        if name == "source":
            items.append(_item("import", "source", value))
        elif type(value) is dict:
            items.extend(_item(name, key, entry) for key, entry in value.items())
        elif type(value) is list:
            items.extend(_item(name, f"{number:04d}", entry) for number, entry in enumerate(value, 1))
        else:
            items.append(_item(name, "value", value))
    if len({(item.memory_type, item.key) for item in items}) < len(items):
        raise InvalidInputError("import: names the source a second time")
    return Persona(line, size_bytes, replaced, user, items)


def _item(memory_type: str, key: str, value: JsonValue) -> SourceItem:
    return SourceItem(
        check_text("a field's name", memory_type, max_chars=_TYPE.max_chars, min_chars=_TYPE.min_chars),
        check_text(f"a key in {memory_type!a}", key, max_chars=_KEY.max_chars, min_chars=_KEY.min_chars),
        check_json(f"{memory_type}[{key!a}]", value),
    )
