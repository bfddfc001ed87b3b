"""`dal.audit`: written once, found by every filter, on every backend and through every layer."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from dal import AuditEvent, DataAccess, InvalidInputError
from dal.testing import FakeClock


async def test_record_gives_the_event_as_stored(dal: DataAccess, clock: FakeClock) -> None:
    event = await dal.audit.record("login")
    assert event == AuditEvent(id=event.id, action="login", level="info", context={}, created_at=clock.now)
    assert (await dal.audit.list()).items == [event]


async def test_record_keeps_every_argument(dal: DataAccess) -> None:
    given: dict[str, object] = {
        "user_id": "anybody, known or not",
        "entity_type": "chat",
        "entity_id": "c-1",
        "level": "warning",
        "message": "",
        "context": {"a": [1, {"b": None}]},
        "trace_id": "t",
        "ip_address": "192.0.2.7",
        "user_agent": "agent/1.0",
        "request_uri": "/a?b=c",
    }
    event = await dal.audit.record("delete", **given)  # type: ignore[arg-type]
    assert event.model_dump(include=set(given)) == given
    assert (await dal.audit.list()).items == [event]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("::", "::"),
    ],
)
async def test_an_address_is_kept_in_its_canonical_form(dal: DataAccess, written: str, read: str) -> None:
    assert (await dal.audit.record("a", ip_address=written)).ip_address == read
    assert (await dal.audit.list()).items[0].ip_address == read


@pytest.mark.parametrize("address", ["", "192.0.2", "192.0.2.0/24", "fe80::1%eth0", "localhost", "192.0.2.007 "])
async def test_what_is_no_address_is_refused(dal: DataAccess, address: str) -> None:
    with pytest.raises(InvalidInputError, match="ip_address"):
        await dal.audit.record("a", ip_address=address)
    assert (await dal.audit.list()).items == []


async def test_a_trail_outlives_its_user(dal: DataAccess) -> None:
    user = await dal.users.create()
    event = await dal.audit.record("login", user_id=user.id)
    await dal.users.delete(user.id)
    assert (await dal.audit.list(user_id=user.id)).items == [event]


async def test_list_is_newest_first_and_every_filter_narrows_it(dal: DataAccess, clock: FakeClock) -> None:
    events = []
    for number in range(32):
        clock.advance(number % 2)
        bits = [number >> bit & 1 for bit in range(5)]
        events.append(
            await dal.audit.record(
                f"action{bits[0]}",
                user_id=f"user{bits[1]}",
                entity_type=f"type{bits[2]}",
                entity_id=f"id{bits[3]}",
                level=f"level{bits[4]}",
                trace_id=f"trace{bits[0] ^ bits[4]}",
            )
        )
    assert (await dal.audit.list()).items == events[::-1]
    filters = {
        "action": "action1",
        "user_id": "user0",
        "entity_type": "type1",
        "entity_id": "id0",
        "level": "level1",
        "trace_id": "trace0",
    }
    left = events[::-1]
    chosen: dict[str, str] = {}
    for name, value in filters.items():
        chosen[name] = value
        alone = (await dal.audit.list(**{name: value})).items  # type: ignore[arg-type]
        assert alone == [event for event in reversed(events) if getattr(event, name) == value]
        left = [event for event in left if getattr(event, name) == value]
        assert (await dal.audit.list(**chosen)).items == left  # type: ignore[arg-type]
    assert len(left) == 1
    assert (await dal.audit.list(action="no such action")).items == []


async def test_since_is_inclusive_and_until_is_not(dal: DataAccess, clock: FakeClock) -> None:
    start = clock.now
    events = []
    for _ in range(5):
        events.append(await dal.audit.record("a"))
        clock.advance(1)
    second = timedelta(seconds=1)
    assert (await dal.audit.list(since=start + 2 * second)).items == events[:1:-1]
    assert (await dal.audit.list(until=start + 2 * second)).items == events[1::-1]
    assert (await dal.audit.list(since=start + second, until=start + 3 * second)).items == [events[2], events[1]]
    assert (await dal.audit.list(since=start + second, until=start + second)).items == []
    elsewhere = (start + second).astimezone(timezone(timedelta(hours=9)))
    assert (await dal.audit.list(since=elsewhere, until=start + 2 * second)).items == [events[1]]
    after_a_microsecond = start + second + timedelta(microseconds=1)
    assert (await dal.audit.list(since=after_a_microsecond, until=start + 3 * second)).items == [events[2]]
    for name in ("since", "until"):
        with pytest.raises(InvalidInputError, match=name):
            await dal.audit.list(**{name: datetime(2026, 1, 1)})  # type: ignore[arg-type]
