"""Records: frozen, serialisable, and the same whether validated or built from a row."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from dal.models import Message, NewMessage, Page, User, build, page

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
VALUES: dict[str, object] = {
    "id": "0190163d-8694-739b-aea5-966c26f8ad91",
    "chat_id": "c-1",
    "role": "user",
    "content": "héllo",
    "metadata": {"a": [1, None]},
    "sequence_number": 7,
    "token_count": None,
    "abuse_flagged": False,
    "created_at": NOW,
    "version": 1,
}


def test_a_built_record_equals_a_validated_one() -> None:
    built, validated = build(Message, VALUES), Message.model_validate(VALUES)
    assert built == validated
    assert built.model_dump() == validated.model_dump()
    assert built.model_dump_json() == validated.model_dump_json()
    assert Message.model_validate_json(built.model_dump_json()) == built
    assert pickle.loads(pickle.dumps(built)) == built  # noqa: S301
    assert built.model_copy(update={"role": "system"}).role == "system"


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        build(Message, VALUES).role = "assistant"  # type: ignore[misc]


def test_a_page_serialises_its_own_records() -> None:
    user = User(id="u", created_at=NOW, updated_at=NOW)
    found = page(User, [user], "next")
    assert found.model_dump()["items"][0]["id"] == "u"
    assert Page[User].model_validate_json(found.model_dump_json()).items == [user]


def test_a_new_message_takes_positions_and_leaves_checking_to_the_repository() -> None:
    new = NewMessage("user", "\ud800", {"k": 1}, 3, "id", NOW)
    assert (new.role, new.content, new.metadata, new.token_count, new.id, new.created_at) == (
        "user",
        "\ud800",
        {"k": 1},
        3,
        "id",
        NOW,
    )
    assert NewMessage(role="user", content="x") == NewMessage("user", "x")


def test_a_new_message_from_outside_is_validated() -> None:
    assert NewMessage.model_validate({"role": "user", "content": "x"}) == NewMessage("user", "x")
    with pytest.raises(ValidationError):
        NewMessage.model_validate({"role": 5, "content": "x"})
    with pytest.raises(ValidationError):
        NewMessage.model_validate({"role": "user", "content": "x", "unknown": 1})
