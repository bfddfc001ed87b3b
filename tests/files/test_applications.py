"""What `dal.testing` gives applications for their tests of files."""

from __future__ import annotations

from dal import FileOptions
from dal.testing import FakeClock, memory_data_access


async def test_an_application_tests_its_files_in_memory_by_its_own_clock() -> None:
    clock = FakeClock()
    async with memory_data_access(clock=clock, files=FileOptions(retention_s=60.0, quota_files=1)) as dal:
        ada = await dal.users.create()
        file = await dal.files.upload(ada.id, "a.txt", b"text")
        assert await dal.files.read(file.id, verify=True) == b"text"
        await dal.files.delete(file.id)
        clock.advance(60)
        assert (await dal.files.sweep()).purged_files == 1
