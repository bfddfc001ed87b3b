"""Parts of an export by kind: small readers that refuse what is of another kind, and name the place."""

from __future__ import annotations

from collections.abc import Container

from dal.errors import InvalidInputError
from dal.ops import JsonValue

Fields = dict[str, JsonValue]


def an_object(value: JsonValue, where: str) -> Fields:
    if type(value) is not dict:
        raise InvalidInputError(f"{where}: expected a JSON object, found {_kind(value)}")
    return value


def a_list(value: JsonValue, where: str) -> list[JsonValue]:
    if type(value) is not list:
        raise InvalidInputError(f"{where}: expected a list, found {_kind(value)}")
    return value


def a_text(value: JsonValue, where: str) -> str:
    if type(value) is not str:
        raise InvalidInputError(f"{where}: expected text, found {_kind(value)}")
    return value


def first_text(fields: Fields, *names: str) -> str | None:
    """The first of these fields that is a text and not empty."""
    for name in names:
        value = fields.get(name)
        if type(value) is str and value:
            return value
    return None


def texts(values: list[JsonValue], separator: str = "\n\n") -> str:
    """Those of the values that are texts and not empty, as one."""
    return separator.join(value for value in values if type(value) is str and value)


def kept(fields: Fields, taken: Container[str]) -> Fields:
    """Metadata with what an export says beyond the fields that were taken; what says nothing is left out."""
    rest: Fields = {
        name: value
        for name, value in fields.items()
        if name not in taken and value is not None and value not in ("", [], {})
    }
    return {"export": rest} if rest else {}


def _kind(value: JsonValue) -> str:
    return "null" if value is None else type(value).__name__
