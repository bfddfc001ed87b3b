"""`files.sweep`: what was left behind, removed; what cannot be right, reported.

Safe beside everything else and beside other sweeps: whatever it ends, it ends under a guard, the row before the bytes.
Run it every hour or so.
"""

from __future__ import annotations

from datetime import timedelta

from dal.errors import ConflictError, DalError
from dal.file_models import SweepReport
from dal.file_tables import FILES, MULTIPART_UPLOADS
from dal.files.core import DELETED, Core, Operation
from dal.files.keys import place_of
from dal.files.orphans import UNDER_WAY, Orphans
from dal.files.parts import forget
from dal.files.recounting import Recounting
from dal.files.reservations import Reservations, upload_row
from dal.files.storing import discard
from dal.files.tally import Tally
from dal.limits import FILE_SWEEP_ROWS, FILE_UPLOAD_LIFE_S
from dal.models import FileRecord, build
from dal.ops import Compare, Delete, Guard, Op, Select, Update


class Sweeping:
    """Sweeps both stores."""

    def __init__(self, core: Core, reservations: Reservations) -> None:
        self._core = core
        self._reservations = reservations

    async def sweep(self, *, dry_run: bool) -> SweepReport:
        """See `Files.sweep`."""
        _ = self._core.blobs
        tally = Tally(dry_run=dry_run)
        await self._uploads(tally)
        await self._deleted(tally)
        await self._permissions(tally)
        recounting = Recounting(self._core, tally)
        await recounting.contents()
        await recounting.quotas()
        await Orphans(self._core, tally).sweep()
        return tally.report()

    async def _uploads(self, tally: Tally) -> None:
        """Ends uploads whose time is over; forgets those that ended long ago."""
        now = self._core.now()
        over = (Compare("status", "in", UNDER_WAY), Compare("expires_at", "<=", now))
        async for page in self._core.pages("multipart_uploads", MULTIPART_UPLOADS.names, "id", *over):
            for row in map(upload_row, page):
                try:
                    if not tally.dry_run:
                        if not await self._reservations.release(row, "expired"):
                            continue
                        await forget(self._core, row)
                    tally.counts["expired_uploads"] += 1
                except DalError as error:
                    tally.failed(f"the upload {row.id}", error)
        if not tally.dry_run:
            long_ago = Compare("updated_at", "<=", now - timedelta(seconds=FILE_UPLOAD_LIFE_S))
            ended = (Compare("status", "in", ("completed", "aborted", "expired")), long_ago)
            await self._delete("multipart_uploads", *ended)

    async def _deleted(self, tally: Tally) -> None:
        """Removes deleted files for good, once they can no longer be restored."""
        before = self._core.now() - timedelta(seconds=self._core.options.retention_s)
        over = (Compare("status", "=", DELETED), Compare("updated_at", "<=", before))
        async for page in self._core.pages("files", FILES.names, "id", *over):
            for record in (build(FileRecord, row) for row in page):
                try:
                    if tally.dry_run or await self._purge(record):
                        tally.counts["purged_files"] += 1
                except DalError as error:
                    tally.failed(f"the deleted file {record.id}", error)

    async def _purge(self, record: FileRecord) -> bool:
        place = place_of(record.storage_key)
        operation = Operation(self._core, "purge", None, record.id, record.user_id)
        ops: list[Op] = [
            Guard("files", {"id": record.id}, {"version": record.version, "status": DELETED}),
            Delete("files", (Compare("id", "=", record.id),)),
            operation.entry(),
        ]
        if place.is_shared:
            change = {"updated_at": self._core.now()}
            ops.append(Update("file_contents", {"blob_key": place.blob_key}, change, {"ref_count": -1, "version": 1}))
        try:
            await self._core.store.commit(ops)
        except ConflictError:
            return False  # restored just now
        if place.is_own and not place.is_shared:
            await discard(self._core, place.blob_key)
        return True

    async def _permissions(self, tally: Tally) -> None:
        expired = Compare("expires_at", "<=", self._core.now())
        if tally.dry_run:
            return
        tally.counts["expired_permissions"] += await self._delete("file_permissions", expired)

    async def _delete(self, table: str, *where: Compare) -> int:
        """Deletes what meets the conditions, a page at a time: how many."""
        count = 0
        while rows := await self._core.store.read(
            Select(table, where, ("id",), limit=FILE_SWEEP_ROWS, columns=("id",))
        ):
            ids = Compare("id", "in", tuple(row[0] for row in rows))
            gone = (await self._core.store.commit((Delete(table, (ids, *where)),))).counts[0]
            count += gone
            if len(rows) < FILE_SWEEP_ROWS or not gone:
                break
        return count
