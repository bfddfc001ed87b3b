-- dal:requires 0003_storage_metrics.sql
-- Migration 0003 (second of two files numbered 0003): security and permissions

CREATE TABLE security_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT REFERENCES users(id) ON DELETE SET NULL,
    event_type TEXT NOT NULL,
    severity TEXT NOT NULL DEFAULT 'info' CHECK (severity IN ('info', 'low', 'medium', 'high', 'critical')),
    file_id TEXT,
    details TEXT,
    ip_address TEXT,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX idx_security_events_type_time ON security_events(event_type, created_at);
CREATE INDEX idx_security_events_user ON security_events(user_id);

CREATE TABLE security_incidents (
    id TEXT PRIMARY KEY,
    event_id INTEGER REFERENCES security_events(id) ON DELETE SET NULL,
    title TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'investigating', 'resolved')),
    assigned_to TEXT REFERENCES users(id) ON DELETE SET NULL,
    opened_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    resolved_at DATETIME
);
CREATE INDEX idx_security_incidents_open ON security_incidents(opened_at) WHERE status <> 'resolved';

CREATE TABLE file_permissions (
    id TEXT PRIMARY KEY,
    file_id TEXT NOT NULL REFERENCES files(id) ON DELETE CASCADE,
    grantee_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    permission TEXT NOT NULL CHECK (permission IN ('read', 'write', 'admin')),
    granted_by TEXT REFERENCES users(id) ON DELETE SET NULL,
    expires_at DATETIME,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (file_id, grantee_id, permission)
);
CREATE INDEX idx_file_permissions_grantee ON file_permissions(grantee_id);
