"""Lines as conversations and user memory: times, provenance, and what is refused with which reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from dal import InvalidInputError
from dal.importing.conversations import Conversation, read_conversation
from dal.importing.personas import SourceItem, read_persona
from dal.importing.times import read_time
from dal.ops import JsonValue
from tests.importing.sources import conversation, message

FILE_TIME = datetime(2020, 1, 1, tzinfo=UTC)


def read(fields: dict[str, JsonValue], *, vouched: bool = True) -> Conversation:
    return read_conversation(fields, line=1, size_bytes=1, vouched=vouched, replaced=0, file_time=FILE_TIME)


def times(**fields: JsonValue) -> list[str]:
    return [m.created_at.strftime("%H:%M") for m in read(conversation(**fields)).messages]  # type: ignore[arg-type]


def minute(m: int) -> datetime:
    return datetime(2024, 3, 1, 9, m, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "time", "says_all"),
    [
        ("2024-03-01T09:00:00", minute(0), True),
        ("2024-03-01 09:00:00", minute(0), True),
        ("20240301T090000.12345678", minute(0).replace(microsecond=123456), False),
        ("2024-03-01T09:00:00.123456", minute(0).replace(microsecond=123456), True),
        ("2024-03-01T09:00:00.123", minute(0).replace(microsecond=123000), True),
        ("2024-03-01T09:00:00.1234567", minute(0).replace(microsecond=123456), False),
        ("2024-03-01T09:00:00Z", minute(0), False),
        ("2024-03-01T18:00:00+09:00", minute(0), False),
        ("2024-03-01T18:00+09", minute(0), False),
        ("2024-03-01", datetime(2024, 3, 1, tzinfo=UTC), False),
        ("0001-01-01T00:00:00+09:00", None, False),
        ("9999-12-31T23:59:59-09:00", None, False),
        ("soon", None, False),
        ("", None, False),
        (None, None, False),
        (1709283600, None, False),
    ],
)
def test_times(text: JsonValue, time: datetime | None, says_all: bool) -> None:
    assert read_time(text) == (time, says_all)


def test_a_message_without_time_has_that_of_the_message_before_it() -> None:
    found = read(
        conversation(
            messages=[message(at=None), message(at="2024-03-01T09:05:00"), message(at="soon"), message(at=None)],
            started_at="2024-03-01T09:01:00",
        )
    )
    assert [m.created_at.minute for m in found.messages] == [1, 5, 5, 5]
    assert [m.metadata for m in found.messages] == [
        {"import": {"at": None}},
        {},
        {"import": {"at": "soon"}},
        {"import": {"at": None}},
    ]


def test_a_chat_without_start_begins_with_the_first_time_it_names() -> None:
    found = read(conversation(messages=[message(at=None), message(at="2024-03-01T09:05:00")], started_at=None))
    assert found.began == found.created_at == minute(5)
    assert found.messages[0].created_at == minute(5)
    assert found.metadata == {"import": {"source": "tests", "started_at": None}}


def test_a_chat_that_names_no_time_has_that_of_the_file() -> None:
    found = read(conversation(messages=[message(at=None)], started_at=None))
    assert found.began is None
    assert found.created_at == found.messages[0].created_at == FILE_TIME


def test_times_that_run_backwards_stay_as_they_are() -> None:
    found = read(conversation(messages=[message(at="2024-03-01T09:05:00"), message(at="2024-03-01T09:01:00")]))
    assert [m.created_at for m in found.messages] == [minute(5), minute(1)]


def test_unknown_fields_and_a_taken_key_are_kept_under_import() -> None:
    found = read(
        conversation(
            metadata={"import": "mine", "lang": "en"},
            model="m-1",
            messages=[message(likes=3, metadata={"import": [1]}), {"role": "user", "content": ""}],
        )
    )
    assert found.metadata == {
        "lang": "en",
        "import": {"source": "tests", "fields": {"model": "m-1"}, "metadata": "mine"},
    }
    assert found.messages[0].metadata == {"import": {"fields": {"likes": 3}, "metadata": [1]}}
    assert found.messages[1].metadata == {"import": {"at": None}}


def test_only_chat_id_messages_role_and_content_must_be_there() -> None:
    found = read({"chat_id": "c", "messages": [{"role": "user", "content": "hi"}]})
    assert (found.user, found.title, found.metadata) == (None, None, {"import": {"started_at": None}})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chat_id": None}, "chat_id: expected text"),
        ({"chat_id": ""}, "chat_id: found 0 characters"),
        ({"chat_id": "x" * 256}, "chat_id: found 256 characters, at most 255"),
        ({"chat_id": 7}, "chat_id: expected text (str), found int"),
        ({"user": "u" * 256}, "user: found 256"),
        ({"user": ""}, "user: found 0"),
        ({"title": "t" * 256}, "title: found 256"),
        ({"title": ["t"]}, "title: expected text"),
        ({"metadata": []}, "metadata: expected a JSON object, found list"),
        ({"metadata": {"n": 2**64}}, "metadata.n: found 18446744073709551616, outside signed 64 bits"),
        ({"messages": {}}, "messages: expected a list, found dict"),
        ({"messages": None}, "messages: expected a list, found null"),
        ({"messages": [None]}, "messages[0]: expected a JSON object, found null"),
        ({"messages": [message(), {"content": "x"}]}, "messages[1].role: missing"),
        ({"messages": [{"role": "user"}]}, "messages[0].content: missing"),
        ({"messages": [message(role="")]}, "messages[0].role: found 0"),
        ({"messages": [message(role="r" * 51)]}, "messages[0].role: found 51"),
        ({"messages": [{**message(), "content": None}]}, "messages[0].content: expected text (str), found NoneType"),
        ({"messages": [message(metadata=[1])]}, "messages[0].metadata: expected a JSON object, found list"),
        ({"messages": [message(metadata={"deep": json.loads("[" * 120 + "]" * 120)})]}, "messages[0].metadata: nested"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(change: dict[str, JsonValue], reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read({**conversation("c-1", "hi"), **change})
    assert reason in caught.value.message


@pytest.mark.parametrize("missing", ["chat_id", "messages"])
def test_a_missing_field_is_named(missing: str) -> None:
    fields = conversation("c-1", "hi")
    del fields[missing]
    with pytest.raises(InvalidInputError, match=f"{missing}: missing"):
        read(fields)


def test_a_document_that_is_not_vouched_for_is_checked_text_by_text() -> None:
    for bad in ("\0", "\ud800"):
        for fields in (
            conversation("c" + bad, "hi"),
            conversation("c", "h" + bad),
            conversation("c", "hi", title=bad),
            conversation("c", messages=[message(metadata={"k": bad})]),
            conversation("c", messages=[message(metadata={bad: 1})]),
            conversation("c", messages=[message(at="x" + bad)]),
            conversation("c", metadata={"k": [bad]}),
            conversation("c", source=bad),
        ):
            with pytest.raises(InvalidInputError, match=r"U\+0000|U\+D800"):
                read(fields, vouched=False)


def test_user_memory_becomes_items_by_field() -> None:
    persona = read_persona(
        {
            "user": "ada",
            "source": "tests",
            "facts": ["one", {"two": 2}],
            "profile": {"age": "20-29", "tags": []},
            "score": 1.5,
            "nothing": None,
            "empty": {},
        },
        line=1,
        size_bytes=1,
        replaced=0,
    )
    assert persona.user == "ada"
    assert persona.items == [
        SourceItem("import", "source", "tests"),
        SourceItem("facts", "0001", "one"),
        SourceItem("facts", "0002", {"two": 2}),
        SourceItem("profile", "age", "20-29"),
        SourceItem("profile", "tags", []),
        SourceItem("score", "value", 1.5),
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"facts": []}, "user: missing"),
        ({"user": None}, "user: expected text"),
        ({"user": "u", "t" * 101: 1}, "a field's name: found 101"),
        ({"user": "u", "profile": {"": 1}}, "a key in 'profile': found 0"),
        ({"user": "u", "profile": {"n": 2**63}}, "outside signed 64 bits"),
        ({"user": "u", "source": "a", "import": {"source": "b"}}, "import: names the source a second time"),
    ],
)
def test_user_memory_that_cannot_be_stored_is_refused_by_name(fields: dict[str, JsonValue], reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_persona(fields, line=1, size_bytes=1, replaced=0)
    assert reason in caught.value.message
