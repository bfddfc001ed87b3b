"""Cursors: bound to their listing, and refusing everything else."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import orjson
import pytest

from dal.cursor import Listing
from dal.errors import InvalidInputError
from dal.ops import Compare

AT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
ID = "0190163d-8694-739b-aea5-966c26f8ad91"
USERS = Listing("users", ("-created_at", "-id"), (Compare("status", "=", "active"),))


def test_a_cursor_gives_back_its_place() -> None:
    assert USERS.after(USERS.cursor([AT, ID])) == (AT, ID)
    assert USERS.after(None) is None


@pytest.mark.parametrize(
    "other",
    [
        USERS._replace(table="chat_sessions"),
        USERS._replace(order=("created_at", "id")),
        USERS._replace(filters=()),
        USERS._replace(filters=(Compare("status", "=", "gone"),)),
        USERS._replace(extra="x"),
    ],
)
def test_a_foreign_cursor_is_refused(other: Listing) -> None:
    with pytest.raises(InvalidInputError, match="another listing"):
        USERS.after(other.cursor([AT, ID]))


def forged(*values: object) -> str:
    real = orjson.loads(base64.urlsafe_b64decode(USERS.cursor([AT, ID]) + "=="))
    return base64.urlsafe_b64encode(orjson.dumps([real[0], *values])).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "é",
        "\ud800",
        "AAAA",
        base64.urlsafe_b64encode(b"{}").decode(),
        base64.urlsafe_b64encode(b"[]").decode(),
        forged(),
        forged("2026-01-02T03:04:05", ID),
        forged("2026-01-02T03:04:05+00:00", "x"),
        forged(1, ID),
        forged(None, None),
        forged(["a"], ID),
        forged("2026-01-02T03:04:05+00:00", ID, 1),
    ],
)
def test_garbage_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInputError):
        USERS.after(cursor)
