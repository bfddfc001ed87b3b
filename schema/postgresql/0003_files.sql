-- Purpose: uploads, shared contents, grants, the access log, quotas, work on files, use and cost.
-- Locks:   creates new tables only; their foreign keys take SHARE ROW EXCLUSIVE on users and files for a moment, which
--          waits for writers of these tables, and lets readers pass.

-- Bytes that several files share: one row for each content. `ref_count` files begin their `storage_key` with `blob_key`.
CREATE TABLE file_contents (
    id UUID PRIMARY KEY,
    checksum VARCHAR(255) COLLATE "C" NOT NULL,
    file_size BIGINT NOT NULL,
    blob_key VARCHAR(255) COLLATE "C" NOT NULL,
    stored_size BIGINT NOT NULL,
    ref_count BIGINT NOT NULL DEFAULT 0,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_file_contents_checksum ON file_contents (checksum);
CREATE UNIQUE INDEX idx_file_contents_blob_key ON file_contents (blob_key);
CREATE INDEX idx_file_contents_unused ON file_contents (ref_count, updated_at);

-- An upload under way, what it reserved of the quota, and in `session_data` what the blob store needs to go on with it.
CREATE TABLE multipart_uploads (
    id UUID PRIMARY KEY,
    file_id UUID NOT NULL,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    storage_key VARCHAR(255) COLLATE "C" NOT NULL,
    filename VARCHAR(255) NOT NULL,
    mime_type VARCHAR(255) NOT NULL,
    total_size BIGINT,
    part_size BIGINT,
    parts_uploaded INTEGER NOT NULL DEFAULT 0,
    reserved_bytes BIGINT NOT NULL DEFAULT 0,
    metadata JSONB NOT NULL DEFAULT '{}',
    session_data JSONB NOT NULL DEFAULT '{}',
    status VARCHAR(50) NOT NULL DEFAULT 'active',
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    completed_at TIMESTAMP WITH TIME ZONE,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_multipart_uploads_storage_key ON multipart_uploads (storage_key);
CREATE INDEX idx_multipart_uploads_user ON multipart_uploads (user_id, created_at DESC, id DESC);
CREATE INDEX idx_multipart_uploads_expires ON multipart_uploads (status, expires_at);

CREATE TABLE multipart_parts (
    id UUID PRIMARY KEY,
    upload_id UUID NOT NULL REFERENCES multipart_uploads (id) ON DELETE CASCADE,
    part_number INTEGER NOT NULL,
    size BIGINT NOT NULL,
    etag VARCHAR(255) NOT NULL,
    checksum VARCHAR(255),
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_multipart_parts_number ON multipart_parts (upload_id, part_number);

-- A public link has no grantee, but the SHA-256 of its token.
CREATE TABLE file_permissions (
    id UUID PRIMARY KEY,
    file_id UUID NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    grantee_id VARCHAR(255) COLLATE "C",
    permission VARCHAR(50) NOT NULL,
    token_hash VARCHAR(255) COLLATE "C",
    granted_by VARCHAR(255),
    expires_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_file_permissions_grantee ON file_permissions (file_id, grantee_id);
CREATE UNIQUE INDEX idx_file_permissions_token ON file_permissions (token_hash);
CREATE INDEX idx_file_permissions_of ON file_permissions (grantee_id, file_id);
CREATE INDEX idx_file_permissions_expires ON file_permissions (expires_at);

-- No foreign keys: the log outlives the files and the people it speaks of.
CREATE TABLE file_access_logs (
    id UUID PRIMARY KEY,
    file_id VARCHAR(255) NOT NULL,
    user_id VARCHAR(255),
    action VARCHAR(50) NOT NULL,
    success BOOLEAN NOT NULL,
    error_message TEXT,
    bytes_transferred BIGINT,
    duration_ms INTEGER,
    ip_address INET,
    user_agent TEXT,
    metadata JSONB NOT NULL DEFAULT '{}',
    created_at TIMESTAMP WITH TIME ZONE NOT NULL
);
CREATE INDEX idx_file_access_logs_recent ON file_access_logs (created_at DESC, id DESC);
CREATE INDEX idx_file_access_logs_file ON file_access_logs (file_id, created_at DESC, id DESC);
CREATE INDEX idx_file_access_logs_user ON file_access_logs (user_id, created_at DESC, id DESC);
CREATE INDEX idx_file_access_logs_action ON file_access_logs (action, created_at DESC, id DESC);

-- `taken` is what is stored and what is reserved, together; a maximum of 2^63 - 1 is no limit.
CREATE TABLE user_quotas (
    id UUID PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    max_bytes BIGINT NOT NULL,
    max_files BIGINT NOT NULL,
    taken_bytes BIGINT NOT NULL DEFAULT 0,
    taken_files BIGINT NOT NULL DEFAULT 0,
    reserved_bytes BIGINT NOT NULL DEFAULT 0,
    reserved_files BIGINT NOT NULL DEFAULT 0,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_user_quotas_user ON user_quotas (user_id);

-- No foreign key: bytes must be swept also when the file's row is gone.
CREATE TABLE file_processing_queue (
    id UUID PRIMARY KEY,
    file_id VARCHAR(255),
    task VARCHAR(100) NOT NULL,
    payload JSONB NOT NULL DEFAULT '{}',
    status VARCHAR(50) NOT NULL DEFAULT 'pending',
    priority INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL DEFAULT 5,
    run_at TIMESTAMP WITH TIME ZONE NOT NULL,
    lease_owner VARCHAR(255),
    lease_until TIMESTAMP WITH TIME ZONE,
    last_error TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    completed_at TIMESTAMP WITH TIME ZONE,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE INDEX idx_file_processing_queue_due ON file_processing_queue (status, priority DESC, run_at, id);
CREATE INDEX idx_file_processing_queue_file ON file_processing_queue (file_id, task);

-- `scope` is `total` or a user's id, `period` a month or a day.
CREATE TABLE storage_metrics (
    id UUID PRIMARY KEY,
    metric VARCHAR(100) COLLATE "C" NOT NULL,
    scope VARCHAR(255) COLLATE "C" NOT NULL,
    period VARCHAR(20) COLLATE "C" NOT NULL,
    value BIGINT NOT NULL DEFAULT 0,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_storage_metrics_lookup ON storage_metrics (metric, scope, period);
CREATE INDEX idx_storage_metrics_scope ON storage_metrics (scope, period, metric);

-- `price_nanos` billionths of the currency for each `unit`, from `from_quantity` on.
CREATE TABLE pricing_tiers (
    id UUID PRIMARY KEY,
    provider VARCHAR(100) COLLATE "C" NOT NULL,
    item VARCHAR(100) COLLATE "C" NOT NULL,
    from_quantity BIGINT NOT NULL DEFAULT 0,
    unit BIGINT NOT NULL DEFAULT 1,
    price_nanos BIGINT NOT NULL,
    currency VARCHAR(3) NOT NULL DEFAULT 'USD',
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_pricing_tiers_lookup ON pricing_tiers (provider, item, from_quantity);

CREATE TABLE cost_tracking (
    id UUID PRIMARY KEY,
    provider VARCHAR(100) COLLATE "C" NOT NULL,
    item VARCHAR(100) COLLATE "C" NOT NULL,
    period VARCHAR(20) COLLATE "C" NOT NULL,
    quantity BIGINT NOT NULL DEFAULT 0,
    cost_nanos BIGINT NOT NULL DEFAULT 0,
    currency VARCHAR(3) NOT NULL DEFAULT 'USD',
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_cost_tracking_lookup ON cost_tracking (provider, period, item);
