"""The queue of work on files, and the scanner that lives on it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from dal import AccessDeniedError, AlreadyExistsError, ConfigurationError, ConflictError, DataAccess, InvalidInputError
from dal.file_models import Caller
from dal.files.reader import FileReader
from dal.testing import FakeClock
from dal.values import new_id
from tests.files.conftest import Opened

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


async def test_a_task_is_taken_once_most_urgent_first_and_done(
    dal: DataAccess, opened: Opened, clock: FakeClock
) -> None:
    other = await opened()
    for number in range(6):
        await dal.files.queue.enqueue("t", payload={"n": number}, priority=number % 3)
    later = await dal.files.queue.enqueue("t", run_at=clock.now + timedelta(seconds=1), priority=9)
    await dal.files.queue.enqueue("other")
    takers = enumerate([dal, other] * 5)
    taken = await asyncio.gather(*(a.files.queue.take(f"w{n}", tasks=["t"], limit=2) for n, a in takers))
    tasks = [task for some in taken for task in some]
    assert len({task.id for task in tasks}) == len(tasks)
    while some := await dal.files.queue.take("last", tasks=["t"], limit=100):
        tasks += some
    assert {task.payload["n"] for task in tasks} == set(range(6))
    assert len(tasks) == 6
    assert await dal.files.queue.take("w", tasks=["none"]) == []
    clock.advance(1)
    [late] = await dal.files.queue.take("w", tasks=["t"])
    assert (late.id, late.attempts, late.status, late.lease_owner) == (later.id, 1, "running", "w")
    done = await dal.files.queue.finish(late)
    assert (done.status, done.completed_at, done.lease_owner) == ("done", clock.now, None)
    with pytest.raises(ConflictError):
        await dal.files.queue.finish(late)


async def test_the_most_urgent_task_is_taken_first(dal: DataAccess) -> None:
    made = [await dal.files.queue.enqueue("t", priority=p) for p in (0, 5, -1, 5)]
    order = [(await dal.files.queue.take("w"))[0].id for _ in made]
    assert order == [made[1].id, made[3].id, made[0].id, made[2].id]


async def test_a_lease_that_is_over_lets_another_take_the_task(dal: DataAccess, clock: FakeClock) -> None:
    await dal.files.queue.enqueue("t", max_attempts=2)
    [mine] = await dal.files.queue.take("slow", lease_s=10)
    mine = await dal.files.queue.extend(mine, lease_s=20)
    clock.advance(19.9)
    assert await dal.files.queue.take("other") == []
    clock.advance(0.1)
    [theirs] = await dal.files.queue.take("other", lease_s=10)
    assert (theirs.id, theirs.attempts, theirs.lease_owner) == (mine.id, 2, "other")
    for late in (dal.files.queue.finish(mine), dal.files.queue.fail(mine, "x"), dal.files.queue.extend(mine)):
        with pytest.raises(ConflictError):
            await late
    clock.advance(10)
    assert await dal.files.queue.take("third") == []  # its worker died with its last attempt
    dead = await dal.files.queue.get(mine.id)
    assert dead is not None
    assert dead.status == "dead"


async def test_a_task_that_fails_waits_longer_each_time_and_dies(dal: DataAccess, clock: FakeClock) -> None:
    task = await dal.files.queue.enqueue("t", max_attempts=3)
    waits = []
    for _ in range(3):
        [mine] = await dal.files.queue.take("w")
        failed = await dal.files.queue.fail(mine, "no luck")
        waits.append((failed.run_at - clock.now).total_seconds() if failed.status == "pending" else None)
        assert await dal.files.queue.take("w") == []
        clock.now = failed.run_at if failed.status == "pending" else clock.now
    assert waits == [30.0, 60.0, None]
    [dead] = (await dal.files.queue.list(status="dead")).items
    assert (dead.id, dead.last_error, dead.attempts) == (task.id, "no luck", 3)
    assert (await dal.files.queue.revive(task.id)) is not None
    assert await dal.files.queue.revive(task.id) is None
    [mine] = await dal.files.queue.take("w")
    await dal.files.queue.finish(mine)
    assert await dal.files.queue.purge(before=clock.now) == 0
    clock.advance(1)
    assert await dal.files.queue.purge(before=clock.now) == 1
    assert await dal.files.queue.get(task.id) is None


@pytest.mark.parametrize("pair", ["memory+memory"], indirect=True)
async def test_what_cannot_be_is_refused(dal: DataAccess) -> None:
    given = new_id()
    task = await dal.files.queue.enqueue("t", id=given)
    assert await dal.files.queue.enqueue("t", id=given) == task
    with pytest.raises(AlreadyExistsError):
        await dal.files.queue.enqueue("other", id=given)
    for call in (
        dal.files.queue.enqueue(""),
        dal.files.queue.enqueue("t", max_attempts=0),
        dal.files.queue.take(""),
        dal.files.queue.take("w", limit=101),
        dal.files.queue.take("w", lease_s=0),
        dal.files.queue.purge(before=task.created_at, status="running"),
    ):
        with pytest.raises(InvalidInputError):
            await call
    assert await dal.files.queue.get("no uuid") is None


async def test_a_file_is_quarantined_until_the_scanner_found_it_clean(opened: Opened, clock: FakeClock) -> None:
    moods: list[str] = []

    async def scanner(reader: FileReader) -> str | None:
        if moods and moods.pop() == "broken":
            raise ConnectionError("the scanner is away")
        return "EICAR" if b"EICAR" in await reader.read() else None

    dal = await opened(scanner=scanner)
    ada = await dal.users.create()
    clean = await dal.files.upload(ada.id, "a.txt", b"harmless")
    evil = await dal.files.upload(ada.id, "b.txt", EICAR)
    assert (clean.status, evil.status) == ("quarantined", "quarantined")
    owner = Caller(user_id=ada.id)
    for call in (
        dal.files.read(clean.id),
        dal.files.read(clean.id, by=owner),
        dal.files.copy(clean.id),
        dal.files.presign_get(clean.id, expires_in=5),
    ):
        with pytest.raises(AccessDeniedError, match="quarantined"):
            await call
    moods[:] = ["broken", "broken"]
    assert await dal.files.scan() == 2
    assert [f.status for f in (await dal.files.list()).items] == ["quarantined", "quarantined"]
    assert await dal.files.scan() == 0
    clock.advance(30)
    assert await dal.files.scan() == 2
    assert await dal.files.read(clean.id, by=owner) == b"harmless"
    found = await dal.files.get(evil.id)
    assert found is not None
    assert (found.status, found.version) == ("infected", 2)
    with pytest.raises(AccessDeniedError, match="found something"):
        await dal.files.read(evil.id)
    log = (await dal.files.access_log(action="scan")).items
    told = sorted((e.success, str(e.metadata.get("found"))) for e in log)
    assert told == [(False, "None"), (False, "None"), (True, "EICAR"), (True, "None")]
    # A deleted file comes back to be looked at again: deleting and restoring it clears nothing.
    await dal.files.delete(evil.id)
    assert (await dal.files.restore(evil.id)).status == "quarantined"
    await dal.files.delete(clean.id)
    assert await dal.files.scan() == 1
    assert (await dal.files.get(evil.id)) is not None
    with pytest.raises(AccessDeniedError):
        await dal.files.read(evil.id)


async def test_a_file_that_is_deleted_while_it_is_looked_at_stays_deleted(opened: Opened) -> None:
    async def scanner(reader: FileReader) -> str | None:
        await dal.files.delete(reader.record.id)
        return None

    dal = await opened(scanner=scanner)
    ada = await dal.users.create()
    file = await dal.files.upload(ada.id, "a.txt", b"text")
    assert await dal.files.scan(limit=1) == 1
    assert [f.id for f in (await dal.files.list(status="deleted")).items] == [file.id]
    assert await dal.files.scan(limit=1) == 1
    assert (await dal.files.queue.list(status="done")).items[0].file_id == file.id
    assert (await dal.files.usage(ada.id)).used_files == 0


async def test_without_a_scanner_there_is_nothing_to_scan_with(dal: DataAccess) -> None:
    with pytest.raises(ConfigurationError, match="scanner"):
        await dal.files.scan()
