"""The one rule for text, numbers, times and JSON at the boundary, the same on every backend.

Each check returns the value as it will be stored, or raises InvalidInputError naming the field and what was found,
never the content. What passes here reads back equal from every store: U+0000, lone surrogates, NaN and infinities are
refused because some engine cannot keep them. Stores do not check again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NoReturn, TypeAlias, cast

import orjson
import uuid_utils

from dal.errors import InvalidInputError, LimitExceededError
from dal.limits import MAX_INT32, MAX_INT64, MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_TEXT_BYTES, MIN_INT64
from dal.ops import JsonValue, Value
from dal.tables import Column, Kind, Table

Clock: TypeAlias = Callable[[], datetime]
IdMaker: TypeAlias = Callable[[], str]

_SHOWN_KEY_CHARS: Final = 40
_CANONICAL_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch


def now() -> datetime:
    """The time, aware, in UTC, with microseconds."""
    return datetime.now(UTC)


def new_id() -> str:
    """A fresh UUIDv7 as lower-case text; ids made one after another in a process sort in that order."""
    return str(uuid_utils.uuid7())


def check_text(field: str, value: object, *, max_chars: int | None = None, min_chars: int = 0) -> str:
    """The text, as it will be stored.

    A subclass of str (a StrEnum, say) is taken by its text.
    max_chars  length in code points; None leaves MAX_TEXT_BYTES of UTF-8 as the only bound.
    Raises     InvalidInputError: not text, too short, U+0000 or a lone surrogate.  LimitExceededError: too long.
    """
    if type(value) is not str:
        if not isinstance(value, str):
            raise InvalidInputError(f"{field}: expected text (str), found {type(value).__name__}")
        value = str.__str__(value)
    chars = len(value)
    if value.isascii():
        if "\0" in value:
            _refuse_character(field, value)
        size_bytes = chars
    else:
        try:
            size_bytes = len(value.encode())
        except UnicodeEncodeError:
            _refuse_character(field, value)
        if "\0" in value:
            _refuse_character(field, value)
    if chars < min_chars:
        raise InvalidInputError(f"{field}: found {_count(chars)}, at least {min_chars} needed")
    if max_chars is not None and chars > max_chars:
        raise LimitExceededError(f"{field}: found {_count(chars)}, at most {max_chars} allowed")
    if size_bytes > MAX_TEXT_BYTES:
        raise LimitExceededError(f"{field}: found {size_bytes} bytes of UTF-8, at most {MAX_TEXT_BYTES} allowed")
    return value


def check_json(field: str, value: object) -> JsonValue:
    """A plain copy of a JSON document, equal to it (`==`), that shares nothing with the caller's objects.

    Allowed are dict with text keys, list, str, int, bool, float and None; subclasses of these (OrderedDict, IntEnum)
    are taken by their plain value. Everything else is refused, tuples too, because it would not read back equal.
    Raises  InvalidInputError: another type, NaN or infinity, an integer outside signed 64 bits, U+0000 or a lone
            surrogate in a string or key; the message holds the place, as `metadata.tags[3]`.
            LimitExceededError: nested deeper than MAX_JSON_DEPTH, or more than MAX_JSON_BYTES encoded.
    Cost    under a microsecond for a small dict: the document is encoded, decoded and compared in C, and only one that
            is not obviously fine is walked in Python.
    """
    if value is None or value is True or value is False:
        return value
    if type(value) is dict and not value:
        return {}
    try:
        data = orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    except TypeError:  # orjson.JSONEncodeError is one
        return _check_json_slowly(field, value)
    # An escaped backslash before u0000 looks like U+0000 here and is only sent the slow way.
    if b"\\u0000" in data or len(data) > MAX_JSON_BYTES:
        return _check_json_slowly(field, value)
    copy: JsonValue = orjson.loads(data)
    # The encoder turns NaN into null, tuples into lists and dates into text: what does not read back equal is refused.
    # Without this many brackets no document is too deep; those inside strings only cost a closer look.
    if copy != value or (data.count(b"[") + data.count(b"{") > MAX_JSON_DEPTH and _is_too_deep(copy)):
        return _check_json_slowly(field, value)
    return copy


def check_object(field: str, value: object) -> dict[str, JsonValue]:
    """A JSON object, as check_json; None gives an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInputError(f"{field}: expected a JSON object (dict), found {type(value).__name__}")
    return cast("dict[str, JsonValue]", check_json(field, value))


def check_time(field: str, value: object) -> datetime:
    """The same instant in UTC. A naive datetime is refused: only the caller knows which zone it meant."""
    if not isinstance(value, datetime):
        raise InvalidInputError(f"{field}: expected a datetime with a time zone, found {type(value).__name__}")
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    if value.utcoffset() is None:
        raise InvalidInputError(
            f"{field}: found a datetime without a time zone; pass an aware one, as datetime.now(timezone.utc)"
        )
    try:
        utc = value.astimezone(UTC)
    except OverflowError as error:
        raise InvalidInputError(f"{field}: found a time outside the years 1 to 9999 when taken to UTC") from error
    return datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, UTC)


def check_id(field: str, value: object) -> str:
    """The UUID in lower case. Any UUID in its form of 36 characters is taken, in upper or lower case."""
    if isinstance(value, str) and (found := as_id(value)) is not None:
        return found
    seen = f"text of {_count(len(value))}" if isinstance(value, str) else type(value).__name__
    raise InvalidInputError(f"{field}: expected a UUID as text of 36 characters, found {seen}")


def as_id(value: str) -> str | None:
    """The id in lower case, or None for text that no row can have as its id."""
    if type(value) is not str:
        value = str.__str__(value)
    if _CANONICAL_ID(value):
        return value
    lower = value.lower()
    return lower if _CANONICAL_ID(lower) else None


def is_id(value: str) -> bool:
    """Whether the text is a UUID, in upper or lower case."""
    return as_id(value) is not None


def check_ip(field: str, value: object) -> str:
    """The IPv4 or IPv6 address in canonical text; a zone (`%eth0`) or netmask (`/24`) is refused."""
    if isinstance(value, str):
        try:
            return canonical_ip(value)
        except ValueError:
            pass
    seen = f"text of {_count(len(value))}" if isinstance(value, str) else type(value).__name__
    raise InvalidInputError(f"{field}: expected an IPv4 or IPv6 address as text, without zone or netmask, found {seen}")


@lru_cache(maxsize=1024)
def canonical_ip(text: str) -> str:
    """The address as this library writes it; ValueError for anything else.

    IPv4-mapped addresses are `::ffff:192.0.2.1`, as PostgreSQL prints them, whatever this version of Python prefers.
    """
    from ipaddress import IPv6Address, ip_address  # 1.4 ms to import, for the audit trail only

    if "%" in text:
        raise ValueError("an address with a zone")
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return f"::ffff:{address.ipv4_mapped}"
    return str(address)


def check_int(field: str, value: object, low: int, high: int) -> int:
    """The integer, if it is in low..high; a bool is not an integer."""
    if type(value) is not int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInputError(f"{field}: expected an integer, found {type(value).__name__}")
        value = int.__int__(value)
    if not low <= value <= high:
        raise InvalidInputError(f"{field}: found {_shown_int(value)}, allowed are {low} to {high}")
    return value


def check_limit(
    field: str, value: object, maximum: int, *, minimum: int = 1, instead: str = "ask for several pages"
) -> int:
    """A size in minimum..maximum; LimitExceededError above it says what to do instead."""
    number = check_int(field, value, minimum, MAX_INT64)
    if number > maximum:
        raise LimitExceededError(f"{field}: found {number}, at most {maximum} allowed; {instead}")
    return number


def seconds_of(field: str, value: object) -> float:
    """A span in seconds, given so or as a timedelta. Raises InvalidInputError for anything else."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise InvalidInputError(f"{field}: expected seconds or a timedelta, got {type(value).__name__}")


def moment_after(now: datetime, field: str, span: object) -> datetime:
    """The moment so many seconds, or a timedelta, after now. Raises InvalidInputError: less than 0, or too far off."""
    seconds = seconds_of(field, span)
    try:
        delta = span if isinstance(span, timedelta) else timedelta(seconds=seconds)
        if delta < timedelta(0):
            raise InvalidInputError(f"{field}: must not be less than 0, got {span!r}")
        return now + delta
    except (OverflowError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{field}: {seconds!r} seconds lie beyond the year 9999; leave it out") from error


def check_expiry(now: datetime, field: str, span: object, expires_at: object) -> datetime | None:
    """When what is made now expires: after a span, given under that name, or at a moment; None: never."""
    if span is None:
        return None if expires_at is None else check_time("expires_at", expires_at)
    if expires_at is not None:
        raise InvalidInputError(f"{field} and expires_at: give one of them")
    moment = moment_after(now, field, span)
    if moment == now:
        raise InvalidInputError(f"{field}: must be more than 0, got {span!r}")
    return moment


def check_bool(field: str, value: object) -> bool:
    """True or False, and nothing that merely looks like them."""
    if value is True or value is False:
        return value
    raise InvalidInputError(f"{field}: expected True or False, found {type(value).__name__}")


def check_column(table: Table, column: str, value: object) -> Value:
    """The value as this column declares it: kind, null, length, range. Errors name `table.column`.

    Raises KeyError for a column the table does not have: that is a programming error.
    """
    declared = table.by_name[column]
    field = f"{table.name}.{column}"
    # JSON has its own null, so a None in a JSON column is a document.
    if value is None and declared.kind is not Kind.JSON:
        if declared.nullable:
            return None
        raise InvalidInputError(f"{field}: expected a value, found None")
    return _BY_KIND[declared.kind](field, value, declared)


_BY_KIND: Final[dict[Kind, Callable[[str, object, Column], Value]]] = {
    Kind.ID: lambda field, value, _: check_id(field, value),
    Kind.TEXT: lambda field, value, c: check_text(field, value, max_chars=c.max_chars, min_chars=c.min_chars),
    Kind.INT: lambda field, value, _: check_int(field, value, -MAX_INT32 - 1, MAX_INT32),
    Kind.BIGINT: lambda field, value, _: check_int(field, value, MIN_INT64, MAX_INT64),
    Kind.BOOL: lambda field, value, _: check_bool(field, value),
    Kind.TIME: lambda field, value, _: check_time(field, value),
    Kind.JSON: lambda field, value, _: check_json(field, value),
    Kind.IP: lambda field, value, _: check_ip(field, value),
}


# The slow way through a document: exact, and able to say where. Iterative, because documents come from anywhere.

_Step: TypeAlias = "tuple[_Step, str | int] | None"  # the way to a node, from it back to the root


def _is_too_deep(document: JsonValue) -> bool:
    level = [document]
    for _ in range(MAX_JSON_DEPTH + 1):
        if not (level := [n for n in level if type(n) is dict or type(n) is list]):
            return False
        level = [c for n in level for c in (n.values() if type(n) is dict else cast("list[JsonValue]", n))]
    return True


def _check_json_slowly(field: str, value: object) -> JsonValue:
    """The plain copy of a document that the fast way could not vouch for, or the error that says why not."""
    stack: list[tuple[object, int, _Step]] = [(value, 1, None)]
    while stack:
        node, depth, step = stack.pop()
        if isinstance(node, dict | list):
            if depth > MAX_JSON_DEPTH:
                raise LimitExceededError(
                    f"{field}: nested deeper than {MAX_JSON_DEPTH} levels; flatten it or store it as text"
                )
            stack.extend((child, depth + 1, (step, key)) for key, child in _children(field, node, step))
        else:
            _check_leaf(field, node, step)
    data = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)  # keys were seen to be text; subclasses need the option
    if len(data) > MAX_JSON_BYTES:
        raise LimitExceededError(f"{field}: found {len(data)} bytes of JSON, at most {MAX_JSON_BYTES} allowed")
    copy: JsonValue = orjson.loads(data)
    if copy != value:
        raise InvalidInputError(
            f"{field}: holds an object whose JSON does not read back equal to it; use plain dict, list, str and numbers"
        )
    return copy


def _children(field: str, node: dict[object, object] | list[object], step: _Step) -> Iterator[tuple[str | int, object]]:
    if isinstance(node, list):
        yield from enumerate(node)
        return
    for key, child in node.items():
        if not isinstance(key, str):
            raise InvalidInputError(
                f"{_path(field, step)}: expected text (str) as keys, found {type(key).__name__}; JSON has no others"
            )
        if _UNSTORABLE.search(key):
            _refuse_character(f"{_path(field, (step, key))} (a key)", key)
        yield key, child


def _check_leaf(field: str, value: object, step: _Step) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            _refuse_character(_path(field, step), value)
    elif isinstance(value, int):
        if not MIN_INT64 <= value <= MAX_INT64:
            raise InvalidInputError(
                f"{_path(field, step)}: found {_shown_int(value)}, outside signed 64 bits; pass it as text"
            )
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise InvalidInputError(f"{_path(field, step)}: found {float.__repr__(value)}, which JSON cannot hold")
    else:
        instead = "a list" if isinstance(value, tuple | set | frozenset) else "its text or its parts"
        raise InvalidInputError(
            f"{_path(field, step)}: expected dict, list, str, int, float, bool or None, found {type(value).__name__}; "
            f"it would not read back equal, pass {instead}"
        )


def _path(field: str, step: _Step) -> str:
    parts: list[str] = []
    while step is not None:
        step, key = step
        if isinstance(key, int):
            parts.append(f"[{key}]")
        elif len(key) <= _SHOWN_KEY_CHARS and _PLAIN_KEY(key):
            parts.append(f".{key}")
        else:
            shown = key if len(key) <= _SHOWN_KEY_CHARS else key[:_SHOWN_KEY_CHARS] + "…"
            parts.append(f"[{shown!a}]")
    return field + "".join(reversed(parts))


def _refuse_character(where: str, value: str) -> NoReturn:
    found = _UNSTORABLE.search(value)
    assert found is not None  # noqa: S101 - the callers have seen one
    what = "U+0000" if found[0] == "\0" else f"the lone surrogate U+{ord(found[0]):04X}"
    raise InvalidInputError(
        f"{where}: found {what} at character {found.start()}, which not every store can keep; remove or replace it"
    )


def _count(chars: int) -> str:
    return "1 character" if chars == 1 else f"{chars} characters"


def _shown_int(value: int) -> str:
    # Python refuses to print integers of thousands of digits; nobody wants to read them either.
    return str(value) if value.bit_length() <= 128 else f"an integer of {value.bit_length()} bits"
