"""The records of files' contents: uploads in parts, grants, accesses, quotas, use, work and cost."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field, JsonValue

from dal.models import Record

Permission = Literal["read", "write", "admin"]


class Caller(Record):
    """On whose behalf an operation on a file is done: checked against owner and grants, and written to the access log.

    user_id  None for somebody who is not signed in: only what a public link's `token` allows.
    """

    user_id: str | None = None
    token: str | None = Field(default=None, repr=False)
    ip_address: str | None = None
    user_agent: str | None = None


class MultipartUpload(Record):
    """An upload in parts, `active` until it is `completed`, `aborted` or `expired`. `part_size` is bytes: of every part
    but the last, where the blob store asks for equal ones; else None."""

    upload_id: str
    file_id: str
    user_id: str
    storage_key: str
    filename: str
    mime_type: str
    total_size: int | None = None
    part_size: int | None = None
    parts_uploaded: int = 0
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    status: str = "active"
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    completed_at: datetime | None = None
    version: int = 1


class UploadPart(Record):
    """One part that arrived: its number from 1, bytes, and the blob store's tag."""

    part_number: int
    size: int
    etag: str
    checksum: str | None = None
    created_at: datetime


class FilePermission(Record):
    """What somebody besides the owner may do: read, write (read too), admin (grant too). `grantee_id` is None for a
    public link, whose token is shown once, when it is made (`token`), and never stored."""

    id: str
    file_id: str
    grantee_id: str | None = None
    permission: Permission
    granted_by: str | None = None
    expires_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    version: int = 1
    token: str | None = Field(default=None, repr=False)


class FileAccess(Record):
    """One operation on a file, as the access log keeps it; `bytes_transferred` are those that passed, also in vain."""

    id: str
    file_id: str
    user_id: str | None = None
    action: str
    success: bool
    error_message: str | None = None
    bytes_transferred: int | None = None
    duration_ms: int | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    created_at: datetime


class Quota(Record):
    """What a user may store, and has: bytes and files; a maximum of None is no limit. Reserved is what uploads under
    way have taken, and counts."""

    user_id: str
    max_bytes: int | None = None
    max_files: int | None = None
    used_bytes: int = 0
    used_files: int = 0
    reserved_bytes: int = 0
    reserved_files: int = 0
    updated_at: datetime | None = None


class Usage(Record):
    """What a user stores: bytes and files, reserved ones apart, and what the quota leaves (None: no limit)."""

    user_id: str
    used_bytes: int
    used_files: int
    reserved_bytes: int
    reserved_files: int
    bytes_left: int | None = None
    files_left: int | None = None


class SweepReport(Record):
    """What a sweep found and did, in numbers of each; with `dry_run` what it would have done.

    expired_uploads   uploads under way whose time was over: their room given back, their bytes removed.
    purged_files      deleted files whose retention was over: their rows and bytes removed.
    orphan_blobs, orphan_bytes  bytes that no row knew, removed.
    orphan_uploads    uploads in parts that the blob store knew and no row did, aborted.
    unused_contents   shared contents that no file used any more, removed.
    corrected_counts  shared contents whose count of files was not what it is.
    corrected_quotas  users whose counters were not the sum of their files.
    expired_permissions  grants and links that had expired, removed.
    missing_files     files whose bytes are gone. They are never removed; `missing` names the first of them.
    problems          what could not be done, a sentence each; the next sweep tries again.
    """

    dry_run: bool = False
    expired_uploads: int = 0
    purged_files: int = 0
    orphan_blobs: int = 0
    orphan_bytes: int = 0
    orphan_uploads: int = 0
    unused_contents: int = 0
    corrected_counts: int = 0
    corrected_quotas: int = 0
    expired_permissions: int = 0
    missing_files: int = 0
    missing: list[str] = Field(default_factory=list)
    problems: list[str] = Field(default_factory=list)


class FileTask(Record):
    """Work to be done on a file: `pending`, `running` under a lease, `done`, or `dead` after its last attempt."""

    id: str
    file_id: str | None = None
    task: str
    payload: dict[str, JsonValue] = Field(default_factory=dict)
    status: str = "pending"
    priority: int = 0
    attempts: int = 0
    max_attempts: int = 5
    run_at: datetime
    lease_owner: str | None = None
    lease_until: datetime | None = None
    last_error: str | None = None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = None
    version: int = 1


class StorageMetric(Record):
    """A counter: what is counted, for whom (`total` or a user's id), when (`2026-11` or `2026-11-29`)."""

    metric: str
    scope: str
    period: str
    value: int
    updated_at: datetime


class PricingTier(Record):
    """From `from_quantity` on, each `unit` of an item costs `price_nanos` billionths of the currency."""

    provider: str
    item: str
    from_quantity: int = 0
    unit: int = 1
    price_nanos: int
    currency: str = "USD"


class Cost(Record):
    """What an item cost in a period, in billionths of the currency."""

    provider: str
    item: str
    period: str
    quantity: int
    cost_nanos: int
    currency: str = "USD"
    updated_at: datetime | None = None
