-- Purpose: uploads, shared contents, grants, the access log, quotas, work on files, use and cost.
-- Locks:   none on existing tables; creates new ones only.

-- Bytes that several files share: one row for each content. `ref_count` files begin their `storage_key` with `blob_key`.
CREATE TABLE file_contents (
    id TEXT PRIMARY KEY NOT NULL,
    checksum TEXT NOT NULL,
    file_size INTEGER NOT NULL,
    blob_key TEXT NOT NULL,
    stored_size INTEGER NOT NULL,
    ref_count INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_file_contents_checksum ON file_contents (checksum);
CREATE UNIQUE INDEX idx_file_contents_blob_key ON file_contents (blob_key);
CREATE INDEX idx_file_contents_unused ON file_contents (ref_count, updated_at);

-- An upload under way, what it reserved of the quota, and in `session_data` what the blob store needs to go on with it.
CREATE TABLE multipart_uploads (
    id TEXT PRIMARY KEY NOT NULL,
    file_id TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    storage_key TEXT NOT NULL,
    filename TEXT NOT NULL,
    mime_type TEXT NOT NULL,
    total_size INTEGER,
    part_size INTEGER,
    parts_uploaded INTEGER NOT NULL DEFAULT 0,
    reserved_bytes INTEGER NOT NULL DEFAULT 0,
    metadata TEXT NOT NULL DEFAULT '{}',
    session_data TEXT NOT NULL DEFAULT '{}',
    status TEXT NOT NULL DEFAULT 'active',
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    completed_at TEXT,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_multipart_uploads_storage_key ON multipart_uploads (storage_key);
CREATE INDEX idx_multipart_uploads_user ON multipart_uploads (user_id, created_at DESC, id DESC);
CREATE INDEX idx_multipart_uploads_expires ON multipart_uploads (status, expires_at);

CREATE TABLE multipart_parts (
    id TEXT PRIMARY KEY NOT NULL,
    upload_id TEXT NOT NULL REFERENCES multipart_uploads (id) ON DELETE CASCADE,
    part_number INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    checksum TEXT,
    created_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_multipart_parts_number ON multipart_parts (upload_id, part_number);

-- A public link has no grantee, but the SHA-256 of its token.
CREATE TABLE file_permissions (
    id TEXT PRIMARY KEY NOT NULL,
    file_id TEXT NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    grantee_id TEXT,
    permission TEXT NOT NULL,
    token_hash TEXT,
    granted_by TEXT,
    expires_at TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_file_permissions_grantee ON file_permissions (file_id, grantee_id);
CREATE UNIQUE INDEX idx_file_permissions_token ON file_permissions (token_hash);
CREATE INDEX idx_file_permissions_of ON file_permissions (grantee_id, file_id);
CREATE INDEX idx_file_permissions_expires ON file_permissions (expires_at);

-- No foreign keys: the log outlives the files and the people it speaks of.
CREATE TABLE file_access_logs (
    id TEXT PRIMARY KEY NOT NULL,
    file_id TEXT NOT NULL,
    user_id TEXT,
    action TEXT NOT NULL,
    success INTEGER NOT NULL,
    error_message TEXT,
    bytes_transferred INTEGER,
    duration_ms INTEGER,
    ip_address TEXT,
    user_agent TEXT,
    metadata TEXT NOT NULL DEFAULT '{}',
    created_at TEXT NOT NULL
);
CREATE INDEX idx_file_access_logs_recent ON file_access_logs (created_at DESC, id DESC);
CREATE INDEX idx_file_access_logs_file ON file_access_logs (file_id, created_at DESC, id DESC);
CREATE INDEX idx_file_access_logs_user ON file_access_logs (user_id, created_at DESC, id DESC);
CREATE INDEX idx_file_access_logs_action ON file_access_logs (action, created_at DESC, id DESC);

-- `taken` is what is stored and what is reserved, together; a maximum of 2^63 - 1 is no limit.
CREATE TABLE user_quotas (
    id TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    max_bytes INTEGER NOT NULL,
    max_files INTEGER NOT NULL,
    taken_bytes INTEGER NOT NULL DEFAULT 0,
    taken_files INTEGER NOT NULL DEFAULT 0,
    reserved_bytes INTEGER NOT NULL DEFAULT 0,
    reserved_files INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_user_quotas_user ON user_quotas (user_id);

-- No foreign key: bytes must be swept also when the file's row is gone.
CREATE TABLE file_processing_queue (
    id TEXT PRIMARY KEY NOT NULL,
    file_id TEXT,
    task TEXT NOT NULL,
    payload TEXT NOT NULL DEFAULT '{}',
    status TEXT NOT NULL DEFAULT 'pending',
    priority INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL DEFAULT 5,
    run_at TEXT NOT NULL,
    lease_owner TEXT,
    lease_until TEXT,
    last_error TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    completed_at TEXT,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX idx_file_processing_queue_due ON file_processing_queue (status, priority DESC, run_at, id);
CREATE INDEX idx_file_processing_queue_file ON file_processing_queue (file_id, task);

-- `scope` is `total` or a user's id, `period` a month or a day.
CREATE TABLE storage_metrics (
    id TEXT PRIMARY KEY NOT NULL,
    metric TEXT NOT NULL,
    scope TEXT NOT NULL,
    period TEXT NOT NULL,
    value INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_storage_metrics_lookup ON storage_metrics (metric, scope, period);
CREATE INDEX idx_storage_metrics_scope ON storage_metrics (scope, period, metric);

-- `price_nanos` billionths of the currency for each `unit`, from `from_quantity` on.
CREATE TABLE pricing_tiers (
    id TEXT PRIMARY KEY NOT NULL,
    provider TEXT NOT NULL,
    item TEXT NOT NULL,
    from_quantity INTEGER NOT NULL DEFAULT 0,
    unit INTEGER NOT NULL DEFAULT 1,
    price_nanos INTEGER NOT NULL,
    currency TEXT NOT NULL DEFAULT 'USD',
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_pricing_tiers_lookup ON pricing_tiers (provider, item, from_quantity);

CREATE TABLE cost_tracking (
    id TEXT PRIMARY KEY NOT NULL,
    provider TEXT NOT NULL,
    item TEXT NOT NULL,
    period TEXT NOT NULL,
    quantity INTEGER NOT NULL DEFAULT 0,
    cost_nanos INTEGER NOT NULL DEFAULT 0,
    currency TEXT NOT NULL DEFAULT 'USD',
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_cost_tracking_lookup ON cost_tracking (provider, period, item);
