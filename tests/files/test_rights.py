"""Who may do what: owners, grants, links, until when; what others are told; and what the access log keeps of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from dal import AccessDeniedError, DataAccess, InvalidInputError, LimitExceededError, NotFoundError, User
from dal.file_models import Caller, FileAccess
from dal.files.service import Files
from dal.testing import FakeClock
from tests.files.test_upload import UNKNOWN

#: What each permission is needed for.
CALLS: dict[str, list[tuple[str, Callable[[Files, str, Caller], Awaitable[Any]]]]] = {
    "read": [
        ("open", lambda files, file_id, by: files.read(file_id, by=by)),
        ("copy", lambda files, file_id, by: files.copy(file_id, by=by)),
    ],
    "write": [("rename", lambda files, file_id, by: files.rename(file_id, "b.txt", by=by))],
    "admin": [
        ("permissions", lambda files, file_id, by: files.permissions(file_id, by=by)),
        ("grant", lambda files, file_id, by: files.grant(file_id, "somebody", by=by)),
        ("link", lambda files, file_id, by: files.link(file_id, by=by)),
        ("revoke", lambda files, file_id, by: files.revoke(file_id, "nobody", by=by)),
    ],
}
RANK = ("read", "write", "admin")


async def allowed(files: Files, file_id: str, by: Caller) -> list[str]:
    """The permissions whose calls the caller may make: all calls of one, or none."""
    found = []
    for permission, calls in CALLS.items():
        outcomes = set()
        for _, call in calls:
            try:
                await call(files, file_id, by)
                outcomes.add(True)
            except AccessDeniedError as error:
                assert error.retryable is False
                assert error.outcome == "not_applied"
                outcomes.add(False)
        assert len(outcomes) == 1
        found += [permission] * outcomes.pop()
    return found


async def test_a_grant_allows_what_it_says_until_it_ends(
    dal: DataAccess, ada: User, bob: User, clock: FakeClock
) -> None:
    file = await dal.files.upload(ada.id, "a.txt", b"text", by=Caller(user_id=ada.id))
    owner, other = Caller(user_id=ada.id), Caller(user_id=bob.id)
    assert await allowed(dal.files, file.id, owner) == list(RANK)
    assert await allowed(dal.files, file.id, other) == []
    assert await allowed(dal.files, file.id, Caller()) == []
    for rank, permission in enumerate(RANK):
        given = await dal.files.grant(file.id, bob.id, permission, by=owner)  # type: ignore[arg-type]
        assert (given.permission, given.granted_by, given.version) == (permission, ada.id, rank + 1)
        assert await allowed(dal.files, file.id, other) == list(RANK[: rank + 1])
    assert await dal.files.revoke(file.id, bob.id, by=owner) is True
    assert await dal.files.revoke(file.id, bob.id, by=owner) is False
    assert await allowed(dal.files, file.id, other) == []
    await dal.files.grant(file.id, bob.id, "write", expires_in=60)
    clock.advance(59.9)
    assert await allowed(dal.files, file.id, other) == ["read", "write"]
    clock.advance(0.1)
    assert await allowed(dal.files, file.id, other) == []
    assert bob.id not in [p.grantee_id for p in await dal.files.permissions(file.id)]
    await dal.files.grant(file.id, bob.id, expires_at=clock.now + timedelta(days=1))
    assert await allowed(dal.files, file.id, other) == ["read"]
    await dal.files.rename(file.id, "c.txt")
    assert (await dal.files.delete(file.id, by=owner)) is True
    assert await allowed(dal.files, file.id, other) == []
    with pytest.raises(AccessDeniedError):
        await dal.files.restore(file.id, by=other)
    await dal.files.restore(file.id, by=owner)
    assert await allowed(dal.files, file.id, other) == ["read"]


async def test_a_link_allows_whoever_has_it(dal: DataAccess, ada: User, bob: User, clock: FakeClock) -> None:
    file = await dal.files.upload(ada.id, "a.txt", b"text")
    other_file = await dal.files.upload(ada.id, "b.txt", b"text")
    link = await dal.files.link(file.id, expires_in=timedelta(hours=1))
    assert link.token is not None
    assert link.token not in repr(link)
    guest = Caller(token=link.token)
    assert link.token not in repr(guest)
    assert await dal.files.read(file.id, by=guest) == b"text"
    assert await dal.files.read(file.id, by=Caller(user_id=bob.id, token=link.token)) == b"text"
    for token in (link.token[:-1], "", "\ud800", link.token + "x"):
        with pytest.raises(AccessDeniedError):
            await dal.files.read(file.id, by=Caller.model_construct(token=token))
    with pytest.raises(AccessDeniedError):
        await dal.files.read(other_file.id, by=guest)
    with pytest.raises(AccessDeniedError):
        await dal.files.rename(file.id, "b.txt", by=guest)
    [shown] = await dal.files.permissions(file.id)
    assert shown == link.model_copy(update={"token": None})
    clock.advance(3600)
    with pytest.raises(AccessDeniedError):
        await dal.files.read(file.id, by=guest)
    forever = await dal.files.link(file.id, "write")
    await dal.files.rename(file.id, "c.txt", by=Caller(token=forever.token))
    assert await dal.files.revoke(file.id, permission_id=forever.id) is True
    with pytest.raises(AccessDeniedError):
        await dal.files.read(file.id, by=Caller(token=forever.token))
    assert (await dal.files.sweep()).expired_permissions == 1


async def test_who_has_no_right_does_not_learn_whether_a_file_is_there(dal: DataAccess, ada: User, bob: User) -> None:
    file = await dal.files.upload(ada.id, "a.txt", b"text")
    gone = await dal.files.upload(ada.id, "b.txt", b"text")
    await dal.files.delete(gone.id)
    told = set()
    for file_id in (file.id, gone.id, UNKNOWN, "no uuid"):
        with pytest.raises(AccessDeniedError) as refused:
            await dal.files.read(file_id, by=Caller(user_id=bob.id))
        told.add(str(refused.value))
    assert len(told) == 1
    with pytest.raises(NotFoundError):
        await dal.files.read(gone.id)
    for call in (
        dal.files.upload(ada.id, "c.txt", b"text", by=Caller(user_id=bob.id)),
        dal.files.start_upload(ada.id, "c.txt", by=Caller()),
        dal.files.copy(file.id, user_id=ada.id, by=Caller(user_id=bob.id)),
        dal.files.delete(file.id, by=Caller(user_id=bob.id)),
    ):
        with pytest.raises(AccessDeniedError):
            await call


@pytest.mark.parametrize("user_id", ["a\ud800b", "a\0b", "x" * 300, ""])
async def test_an_id_that_no_user_can_have_has_no_right_and_its_row_in_the_log(
    dal: DataAccess, ada: User, user_id: str
) -> None:
    file = await dal.files.upload(ada.id, "a.txt", b"text")
    by = Caller(user_id=user_id, token="t\ud800\0", ip_address="\0", user_agent="\ud800")
    assert await allowed(dal.files, file.id, by) == []
    for call in (
        dal.files.upload(ada.id, "b.txt", b"text", by=by),
        dal.files.delete(file.id, by=by),
        dal.files.start_upload(ada.id, "c.txt", by=by),
        dal.files.list_parts(UNKNOWN, by=by),
        dal.files.presign_get(file.id, expires_in=5, by=by),
    ):
        with pytest.raises(AccessDeniedError):
            await call
    kept = user_id[:255].replace("\ud800", "\ufffd").replace("\0", "\ufffd")
    log = (await dal.files.access_log(success=False)).items
    assert [entry.user_id for entry in log] == [kept] * (7 + 5)


async def test_only_grants_and_links_that_hold_and_are_others_take_up_room(
    dal: DataAccess, ada: User, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dal.files.granting.FILE_MAX_PERMISSIONS", 3)
    file = await dal.files.upload(ada.id, "a.txt", b"text")
    await dal.files.grant(file.id, "g0", expires_in=60)
    await dal.files.grant(file.id, "g1")
    await dal.files.link(file.id)
    changed = await dal.files.grant(file.id, "g1", "write")
    assert (changed.permission, changed.version) == ("write", 2)
    for call in (dal.files.grant(file.id, "g2"), dal.files.link(file.id)):
        with pytest.raises(LimitExceededError, match="3 grants and links"):
            await call
    clock.advance(60)
    await dal.files.grant(file.id, "g2")
    for call in (dal.files.grant(file.id, "g0"), dal.files.grant(file.id, "g3"), dal.files.link(file.id)):
        with pytest.raises(LimitExceededError, match="3 grants and links"):
            await call
    assert sorted(str(given.grantee_id) for given in await dal.files.permissions(file.id)) == ["None", "g1", "g2"]


async def test_a_link_s_id_that_is_none_takes_nothing_back(dal: DataAccess, ada: User) -> None:
    file = await dal.files.upload(ada.id, "a.txt", b"text")
    link = await dal.files.link(file.id)
    for permission_id in ("zz", "", UNKNOWN, "a\0\ud800", "x" * 300):
        assert await dal.files.revoke(file.id, permission_id=permission_id) is False
    with pytest.raises(AccessDeniedError):
        await dal.files.revoke(file.id, permission_id="zz", by=Caller(user_id="nobody"))
    with pytest.raises(InvalidInputError, match="permission_id"):
        await dal.files.revoke(file.id, permission_id=5)  # type: ignore[arg-type]
    assert await dal.files.revoke(file.id, permission_id=link.id.upper()) is True


@pytest.mark.parametrize("pair", ["memory+memory"], indirect=True)
async def test_what_cannot_be_is_refused(dal: DataAccess, ada: User) -> None:
    file = await dal.files.upload(ada.id, "a.txt", b"text")
    for call in (
        dal.files.grant(file.id, "x", "all"),  # type: ignore[arg-type]
        dal.files.grant(file.id, ""),
        dal.files.grant(file.id, "x", expires_in=0),
        dal.files.grant(file.id, "x", expires_in=1e300),
        dal.files.grant(file.id, "x", expires_in=True),
        dal.files.grant(file.id, "x", expires_in="60"),  # type: ignore[arg-type]
        dal.files.link(file.id, expires_in=True),
        dal.files.link(file.id, expires_in=float("nan")),
        dal.files.link(file.id, expires_in=timedelta(0)),
        dal.files.grant(file.id, "x", expires_in=1, expires_at=file.created_at),
        dal.files.link(file.id, "admin"),
        dal.files.revoke(file.id),
        dal.files.revoke(file.id, "x", permission_id="y"),
        dal.files.read(file.id, by="ada"),  # type: ignore[arg-type]
        dal.files.update(file.id, file_size=9),
        dal.files.update(file.id, status="active"),
        dal.files.update(file.id, filename="../b"),
        DataAccess(dal.store).files.update(file.id, file_size=9),  # also where no contents are at hand
        dal.files.presign_get(file.id, expires_in="1"),  # type: ignore[arg-type]
        dal.files.presign_get(file.id, expires_in=True),
        dal.files.read(file.id, start=True),
        dal.files.read(file.id, end=True),
        dal.files.set_quota(ada.id, max_bytes=True, max_files=None),
        dal.files.set_quota(ada.id, max_bytes=None, max_files=True),
        dal.files.rename(file.id, "b.txt", expected_version=True),
        dal.files.upload(ada.id, "a", b"", mime_type="text/plain\r\nX: y"),
        dal.files.upload(ada.id, "a", b"", mime_type="text"),
    ):
        with pytest.raises(InvalidInputError):
            await call
    async with dal.files.open(file.id) as reader:
        for n in (True, "1", None):
            with pytest.raises(InvalidInputError, match=r"^n: "):
                await reader.read(n)  # type: ignore[arg-type]
        assert await reader.read() == b"text"
    assert (await dal.files.update(file.id, metadata={"a": 1})).metadata == {"a": 1}
    log = (await dal.files.access_log(file_id=file.id, action="update")).items
    assert [(entry.success, entry.user_id) for entry in log] == [(True, ada.id), *[(False, None)] * 3]


async def test_every_operation_leaves_a_row_also_refused_and_failed(
    dal: DataAccess, ada: User, bob: User, clock: FakeClock
) -> None:
    by = Caller(user_id=ada.id, ip_address="2001:DB8::1", user_agent="curl/8\0")
    file = await dal.files.upload(ada.id, "a.txt", b"0123456789", by=by)
    clock.advance(1)
    assert await dal.files.read(file.id, start=2, end=5, by=by) == b"234"
    async with dal.files.open(file.id, by=by) as reader:
        assert await reader.read(1) == b"0"
    with pytest.raises(AccessDeniedError):
        await dal.files.read(file.id, by=Caller(user_id=bob.id, ip_address="not one"))
    with pytest.raises(InvalidInputError):
        await dal.files.upload(ada.id, "b.png", b"text", mime_type="image/png")
    await dal.files.delete(file.id)
    assert await dal.files.delete(file.id) is False

    def told(entry: FileAccess) -> tuple[object, ...]:
        return entry.action, entry.success, entry.user_id, entry.bytes_transferred

    entries = (await dal.files.access_log()).items
    assert sorted(map(told, entries), key=repr) == sorted(
        [
            ("delete", False, None, None),
            ("delete", True, ada.id, None),
            ("upload", False, ada.id, 4),
            ("open", False, bob.id, None),
            ("open", True, ada.id, 10),
            ("open", True, ada.id, 3),
            ("upload", True, ada.id, 10),
        ],
        key=repr,
    )
    [first] = (await dal.files.access_log(action="upload", success=True)).items
    assert (first.ip_address, first.user_agent, first.error_message) == ("2001:db8::1", "curl/8\ufffd", None)
    assert (first.file_id, first.metadata) == (file.id, {})
    assert first.duration_ms is not None
    [refused] = (await dal.files.access_log(user_id=bob.id)).items
    assert refused.ip_address is None
    assert "AccessDeniedError" in str(refused.error_message)
    [deleted] = (await dal.files.access_log(action="delete", success=True)).items
    assert deleted.metadata == {"by": "application"}
    page = await dal.files.access_log(file_id=file.id, limit=2)
    assert page.next is not None
    rest = await dal.files.access_log(file_id=file.id, limit=1000, after=page.next)
    assert len(page.items) + len(rest.items) == 6
    assert (await dal.files.access_log(since=clock.now, until=clock.now + timedelta(seconds=1), action="upload")).items
