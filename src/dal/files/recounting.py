"""Counters against what they count: users' quotas, and how many files share a content.

They change in the commit of the file they count, so they agree, but for what is done around them: a user is deleted
with everything of theirs, an application deletes a file's row in a transaction of its own. Each correction
holds only at the version at which the counter was read, before its files were.
"""

from __future__ import annotations

from collections import Counter

from dal.errors import ConflictError, DalError
from dal.file_tables import FILE_CONTENTS, USER_QUOTAS
from dal.files.core import DELETED, Core
from dal.files.keys import place_of
from dal.files.orphans import UNDER_WAY
from dal.files.tally import Tally
from dal.ops import Compare, Delete, Guard, Update, Value

_Columns = dict[str, Value]


class Recounting:
    """Compares counters with what they count, and corrects them."""

    def __init__(self, core: Core, tally: Tally) -> None:
        self._core = core
        self._tally = tally

    async def quotas(self) -> None:
        """Every user's counters against their files and uploads under way."""
        async for page in self._core.pages("user_quotas", USER_QUOTAS.names, "user_id"):
            span = (
                Compare("user_id", ">=", page[0]["user_id"]),
                Compare("user_id", "<=", page[-1]["user_id"]),
            )
            size: Counter[Value] = Counter()
            files: Counter[Value] = Counter()
            held: Counter[Value] = Counter()
            waiting: Counter[Value] = Counter()
            columns = ("id", "user_id", "file_size", "storage_key")
            async for rows in self._core.pages("files", columns, "id", *span, Compare("status", "!=", DELETED)):
                for row in rows:
                    if place_of(str(row["storage_key"])).is_own:
                        size[row["user_id"]] += _int(row["file_size"])
                        files[row["user_id"]] += 1
            async for rows in self._core.pages(
                "multipart_uploads",
                ("id", "user_id", "reserved_bytes"),
                "id",
                *span,
                Compare("status", "in", UNDER_WAY),
            ):
                for row in rows:
                    held[row["user_id"]] += _int(row["reserved_bytes"])
                    waiting[row["user_id"]] += 1
            for quota in page:
                user = quota["user_id"]
                right: _Columns = {
                    "taken_bytes": size[user] + held[user],
                    "taken_files": files[user] + waiting[user],
                    "reserved_bytes": held[user],
                    "reserved_files": waiting[user],
                }
                if any(quota[column] != value for column, value in right.items()):
                    await self._correct("user_quotas", quota, right, "corrected_quotas")

    async def contents(self) -> None:
        """Every shared content against its files; what none shares is removed, its row before its bytes."""
        async for page in self._core.pages("file_contents", FILE_CONTENTS.names, "blob_key"):
            span = (
                Compare("storage_key", ">=", page[0]["blob_key"]),
                Compare("storage_key", "<", f"{page[-1]['blob_key']}A"),  # the character behind "@"
            )
            shares: Counter[str] = Counter()
            async for rows in self._core.pages("files", ("storage_key",), "storage_key", *span):
                shares.update(place_of(str(row["storage_key"])).blob_key for row in rows)
            for content in page:
                right = shares[str(content["blob_key"])]
                if right == 0:
                    await self._remove(content)
                elif content["ref_count"] != right:
                    await self._correct("file_contents", content, {"ref_count": right}, "corrected_counts")

    async def _remove(self, content: _Columns) -> None:
        key = {"id": content["id"]}
        if not self._tally.dry_run:
            ops = (
                Guard("file_contents", key, {"version": content["version"]}),
                Delete("file_contents", (Compare("id", "=", content["id"]),)),
            )
            try:
                await self._core.store.commit(ops)
                await self._core.blobs.delete((str(content["blob_key"]),))
            except ConflictError:
                return  # it is used again
            except DalError as error:
                self._tally.failed(f"the unused content {content['blob_key']}", error)
                return
        self._tally.counts["unused_contents"] += 1

    async def _correct(self, table: str, row: _Columns, right: _Columns, count: str) -> None:
        key = {"id": row["id"]}
        if not self._tally.dry_run:
            ops = (
                Guard(table, key, {"version": row["version"]}),
                Update(table, key, {**right, "updated_at": self._core.now()}, {"version": 1}),
            )
            try:
                await self._core.store.commit(ops)
            except ConflictError:
                return  # it changed meanwhile: what was read says nothing of it now
            except DalError as error:
                self._tally.failed(f"{table}[{row['id']}]", error)
                return
        self._tally.counts[count] += 1


def _int(value: Value) -> int:
    return value if isinstance(value, int) else 0
