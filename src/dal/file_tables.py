"""The tables of files: what is known of them, uploads, grants, quotas, the access log, work to do, use and cost."""

from __future__ import annotations

from typing import Final

from dal.table import (
    VERSION,
    Column,
    Index,
    Kind,
    Parent,
    Table,
    id_column,
    json_column,
    text_column,
    time_column,
)

FILES: Final = Table(
    "files",
    (
        id_column(),
        id_column("user_id"),
        text_column("filename", 255, min_chars=1),
        text_column("storage_key", 255, min_chars=1),
        text_column("mime_type", 255, min_chars=1),
        Column("file_size", Kind.BIGINT),
        text_column("checksum", 255, nullable=True),
        json_column("metadata"),
        text_column("status", 50, min_chars=1),
        time_column("created_at"),
        time_column("updated_at"),
        VERSION,
    ),
    indexes=(
        Index("idx_files_storage_key", ("storage_key",), unique=True),
        Index("idx_files_user_created", ("user_id", "-created_at", "-id")),
        Index("idx_files_user_name", ("user_id", "filename")),
        Index("idx_files_status", ("status",)),
        Index("idx_files_created", ("-created_at", "-id")),
    ),
    parents=(Parent("user_id", "users", "cascade"),),
    owner="user_id",
)

# Bytes that several files share (de-duplication by content): one row for each content, counting the files whose
# `storage_key` begins with `blob_key`. The bytes go once the row was deleted at a count of 0; no `blob_key` returns.
FILE_CONTENTS: Final = Table(
    "file_contents",
    (
        id_column(),
        text_column("checksum", 255, min_chars=1),
        Column("file_size", Kind.BIGINT),
        text_column("blob_key", 255, min_chars=1),
        Column("stored_size", Kind.BIGINT),
        Column("ref_count", Kind.BIGINT),
        time_column("created_at"),
        time_column("updated_at"),
        VERSION,
    ),
    indexes=(
        Index("idx_file_contents_checksum", ("checksum",), unique=True),
        Index("idx_file_contents_blob_key", ("blob_key",), unique=True),
        Index("idx_file_contents_unused", ("ref_count", "updated_at")),
    ),
)

# An upload under way, whole or in parts: what it reserved of the quota, and where its bytes go. `session_data` is what
# the blob store needs to go on with it. `id` is the upload's id, `file_id` the id that the file will have.
MULTIPART_UPLOADS: Final = Table(
    "multipart_uploads",
    (
        id_column(),
        id_column("file_id"),
        id_column("user_id"),
        text_column("storage_key", 255, min_chars=1),
        text_column("filename", 255, min_chars=1),
        text_column("mime_type", 255, min_chars=1),
        Column("total_size", Kind.BIGINT, nullable=True),
        Column("part_size", Kind.BIGINT, nullable=True),
        Column("parts_uploaded", Kind.INT),
        Column("reserved_bytes", Kind.BIGINT),
        json_column("metadata"),
        json_column("session_data"),
        text_column("status", 50, min_chars=1),
        time_column("created_at"),
        time_column("updated_at"),
        time_column("expires_at"),
        time_column("completed_at", nullable=True),
        VERSION,
    ),
    indexes=(
        Index("idx_multipart_uploads_storage_key", ("storage_key",), unique=True),
        Index("idx_multipart_uploads_user", ("user_id", "-created_at", "-id")),
        Index("idx_multipart_uploads_expires", ("status", "expires_at")),
    ),
    parents=(Parent("user_id", "users", "cascade"),),
    owner="user_id",
)

MULTIPART_PARTS: Final = Table(
    "multipart_parts",
    (
        id_column(),
        id_column("upload_id"),
        Column("part_number", Kind.INT),
        Column("size", Kind.BIGINT),
        text_column("etag", 255, min_chars=1),
        text_column("checksum", 255, nullable=True),
        time_column("created_at"),
        VERSION,
    ),
    indexes=(Index("idx_multipart_parts_number", ("upload_id", "part_number"), unique=True),),
    parents=(Parent("upload_id", "multipart_uploads", "cascade"),),
    owner="upload_id.user_id",
)

# Who else may do what with a file. A public link has no grantee, but the SHA-256 of its token.
FILE_PERMISSIONS: Final = Table(
    "file_permissions",
    (
        id_column(),
        id_column("file_id"),
        text_column("grantee_id", 255, nullable=True, min_chars=1),
        text_column("permission", 50, min_chars=1),
        text_column("token_hash", 255, nullable=True, min_chars=1),
        text_column("granted_by", 255, nullable=True),
        time_column("expires_at", nullable=True),
        time_column("created_at"),
        time_column("updated_at"),
        VERSION,
    ),
    indexes=(
        Index("idx_file_permissions_grantee", ("file_id", "grantee_id"), unique=True),
        Index("idx_file_permissions_token", ("token_hash",), unique=True),
        Index("idx_file_permissions_of", ("grantee_id", "file_id")),
        Index("idx_file_permissions_expires", ("expires_at",)),
    ),
    parents=(Parent("file_id", "files", "cascade"),),
    owner="file_id.user_id",
    expires="expires_at",
)

# Every operation on a file. No foreign keys on purpose: the log outlives the files and the people it speaks of.
FILE_ACCESS_LOGS: Final = Table(
    "file_access_logs",
    (
        id_column(),
        text_column("file_id", 255),
        text_column("user_id", 255, nullable=True),
        text_column("action", 50, min_chars=1),
        Column("success", Kind.BOOL),
        text_column("error_message", nullable=True),
        Column("bytes_transferred", Kind.BIGINT, nullable=True),
        Column("duration_ms", Kind.INT, nullable=True),
        Column("ip_address", Kind.IP, nullable=True),
        text_column("user_agent", nullable=True),
        json_column("metadata"),
        time_column("created_at"),
    ),
    indexes=(
        Index("idx_file_access_logs_recent", ("-created_at", "-id")),
        Index("idx_file_access_logs_file", ("file_id", "-created_at", "-id")),
        Index("idx_file_access_logs_user", ("user_id", "-created_at", "-id")),
        Index("idx_file_access_logs_action", ("action", "-created_at", "-id")),
    ),
    owner="user_id",
)

# One row a user. `taken` is what is stored and what is reserved, together, so that one comparison keeps a quota.
USER_QUOTAS: Final = Table(
    "user_quotas",
    (
        id_column(),
        id_column("user_id"),
        Column("max_bytes", Kind.BIGINT),
        Column("max_files", Kind.BIGINT),
        Column("taken_bytes", Kind.BIGINT),
        Column("taken_files", Kind.BIGINT),
        Column("reserved_bytes", Kind.BIGINT),
        Column("reserved_files", Kind.BIGINT),
        time_column("created_at"),
        time_column("updated_at"),
        VERSION,
    ),
    indexes=(Index("idx_user_quotas_user", ("user_id",), unique=True),),
    parents=(Parent("user_id", "users", "cascade"),),
    owner="user_id",
)

# Work to be done on files, taken under a lease, retried, and set aside as `dead` after its last attempt. It names no
# parent: bytes must be swept also when their owner is gone.
FILE_PROCESSING_QUEUE: Final = Table(
    "file_processing_queue",
    (
        id_column(),
        text_column("file_id", 255, nullable=True),
        text_column("task", 100, min_chars=1),
        json_column("payload"),
        text_column("status", 50, min_chars=1),
        Column("priority", Kind.INT),
        Column("attempts", Kind.INT),
        Column("max_attempts", Kind.INT),
        time_column("run_at"),
        text_column("lease_owner", 255, nullable=True),
        time_column("lease_until", nullable=True),
        text_column("last_error", nullable=True),
        time_column("created_at"),
        time_column("updated_at"),
        time_column("completed_at", nullable=True),
        VERSION,
    ),
    indexes=(
        Index("idx_file_processing_queue_due", ("status", "-priority", "run_at", "id")),
        Index("idx_file_processing_queue_file", ("file_id", "task")),
    ),
)

# Counters by what is counted, for whom (`total` or a user's id), and when (`2026-11` or `2026-11-29`).
STORAGE_METRICS: Final = Table(
    "storage_metrics",
    (
        id_column(),
        text_column("metric", 100, min_chars=1),
        text_column("scope", 255, min_chars=1),
        text_column("period", 20, min_chars=1),
        Column("value", Kind.BIGINT),
        time_column("created_at"),
        time_column("updated_at"),
        VERSION,
    ),
    indexes=(
        Index("idx_storage_metrics_lookup", ("metric", "scope", "period"), unique=True),
        Index("idx_storage_metrics_scope", ("scope", "period", "metric")),
    ),
    owner="scope",
)

# What a blob store costs: `price_nanos` billionths of the currency for each `unit` of an item, from `from_quantity` on.
PRICING_TIERS: Final = Table(
    "pricing_tiers",
    (
        id_column(),
        text_column("provider", 100, min_chars=1),
        text_column("item", 100, min_chars=1),
        Column("from_quantity", Kind.BIGINT),
        Column("unit", Kind.BIGINT),
        Column("price_nanos", Kind.BIGINT),
        text_column("currency", 3, min_chars=3),
        time_column("created_at"),
        time_column("updated_at"),
        VERSION,
    ),
    indexes=(Index("idx_pricing_tiers_lookup", ("provider", "item", "from_quantity"), unique=True),),
)

COST_TRACKING: Final = Table(
    "cost_tracking",
    (
        id_column(),
        text_column("provider", 100, min_chars=1),
        text_column("item", 100, min_chars=1),
        text_column("period", 20, min_chars=1),
        Column("quantity", Kind.BIGINT),
        Column("cost_nanos", Kind.BIGINT),
        text_column("currency", 3, min_chars=3),
        time_column("created_at"),
        time_column("updated_at"),
        VERSION,
    ),
    indexes=(Index("idx_cost_tracking_lookup", ("provider", "period", "item"), unique=True),),
)

#: Parents before children.
FILE_TABLES: Final = (
    FILES,
    FILE_CONTENTS,
    MULTIPART_UPLOADS,
    MULTIPART_PARTS,
    FILE_PERMISSIONS,
    FILE_ACCESS_LOGS,
    USER_QUOTAS,
    FILE_PROCESSING_QUEUE,
    STORAGE_METRICS,
    PRICING_TIERS,
    COST_TRACKING,
)
