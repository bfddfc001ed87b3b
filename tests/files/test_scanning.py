"""The scanner that lives on the queue, and workers of several applications."""

from __future__ import annotations

import asyncio

import pytest

from dal import AccessDeniedError, ConfigurationError, DataAccess, InvalidInputError
from dal.file_models import Caller
from dal.files.entering import SCAN
from dal.files.reader import FileReader
from dal.testing import FakeClock
from tests.files.conftest import Opened

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


async def test_workers_of_several_applications_take_each_task_once(dal: DataAccess, opened: Opened) -> None:
    applications = [dal, await opened(), await opened()]
    for _ in range(25):
        await dal.files.queue.enqueue("t")
    takers = [(application, f"{n}-{k}") for n, application in enumerate(applications) for k in range(4)]
    taken = await asyncio.gather(*(application.files.queue.take(name, limit=2) for application, name in takers))
    assert [len(some) for some in taken] == [2] * 12
    [last] = await dal.files.queue.take("last", limit=2)
    assert len({task.id for some in taken for task in some} | {last.id}) == 25


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


@pytest.mark.parametrize("pair", ["memory+memory"], indirect=True)
async def test_a_scan_of_no_number_of_files_is_refused(opened: Opened) -> None:
    async def scanner(reader: FileReader) -> str | None:
        return None if await reader.read() else "empty"

    dal = await opened(scanner=scanner)
    for wrong in (0, -1, True, "1", None, 1.5):
        with pytest.raises(InvalidInputError, match="limit"):
            await dal.files.scan(limit=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="lease_s"):
        await dal.files.scan(lease_s=True)


async def test_without_a_scanner_there_is_nothing_to_scan_with(dal: DataAccess) -> None:
    with pytest.raises(ConfigurationError, match="scanner"):
        await dal.files.scan()


async def test_a_task_that_names_no_file_is_done_and_holds_nobody_up(opened: Opened) -> None:
    async def scanner(reader: FileReader) -> str | None:
        return None if await reader.read() else "empty"

    dal = await opened(scanner=scanner)
    for file_id in ("zz", "", None):
        await dal.files.queue.enqueue(SCAN, file_id=file_id, priority=1)
    ada = await dal.users.create()
    file = await dal.files.upload(ada.id, "a.txt", b"harmless")
    assert await dal.files.scan() == 4
    assert await dal.files.read(file.id) == b"harmless"
