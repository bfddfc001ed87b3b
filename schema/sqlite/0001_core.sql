-- Purpose: users, chats, messages, memory, files and the audit trail.
-- Locks:   none on existing tables; creates new ones only.
-- Times are text, 'YYYY-MM-DDTHH:MM:SS.ffffffZ', so that text order is time order. JSON documents are text, kept as given.

CREATE TABLE users (
    id TEXT PRIMARY KEY NOT NULL,
    clerk_id TEXT,
    email TEXT,
    name TEXT,
    profile TEXT NOT NULL DEFAULT '{}',
    preferences TEXT NOT NULL DEFAULT '{}',
    status TEXT NOT NULL DEFAULT 'active',
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    last_active_at TEXT,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_users_clerk_id ON users (clerk_id);
CREATE INDEX idx_users_email ON users (email);
CREATE INDEX idx_users_status ON users (status);
CREATE INDEX idx_users_created ON users (created_at DESC, id DESC);

CREATE TABLE chat_sessions (
    id TEXT PRIMARY KEY NOT NULL,
    chat_id TEXT NOT NULL,
    user_id TEXT REFERENCES users (id) ON DELETE SET NULL,
    title TEXT,
    profile TEXT NOT NULL DEFAULT 'general',
    metadata TEXT NOT NULL DEFAULT '{}',
    status TEXT NOT NULL DEFAULT 'active',
    message_count INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    last_message_at TEXT,
    last_activity_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_chat_sessions_chat_id ON chat_sessions (chat_id);
CREATE INDEX idx_chat_sessions_user_id ON chat_sessions (user_id);
CREATE INDEX idx_chat_sessions_profile ON chat_sessions (profile);
CREATE INDEX idx_chat_sessions_status ON chat_sessions (status);
CREATE INDEX idx_chat_sessions_last_message ON chat_sessions (last_message_at);
CREATE INDEX idx_chat_sessions_user_recent ON chat_sessions (user_id, last_message_at DESC);
CREATE INDEX idx_chat_sessions_activity ON chat_sessions (last_activity_at DESC, id DESC);
CREATE INDEX idx_chat_sessions_user_activity ON chat_sessions (user_id, last_activity_at DESC, id DESC);

-- doc_id is the rowid under a name of its own: VACUUM keeps it, so a full-text index may point to it. With the UNIQUE id
-- it costs what a TEXT primary key costs.
CREATE TABLE messages (
    doc_id INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    chat_session_id TEXT NOT NULL REFERENCES chat_sessions (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    metadata TEXT NOT NULL DEFAULT '{}',
    sequence_number INTEGER NOT NULL,
    token_count INTEGER,
    abuse_flagged INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX idx_messages_chat_session ON messages (chat_session_id);
CREATE INDEX idx_messages_role ON messages (role);
CREATE UNIQUE INDEX idx_messages_sequence ON messages (chat_session_id, sequence_number);
CREATE INDEX idx_messages_created_at ON messages (created_at);
CREATE INDEX idx_messages_abuse_flagged ON messages (abuse_flagged);
CREATE INDEX idx_messages_chat_recent ON messages (chat_session_id, created_at DESC);

CREATE TABLE user_memory (
    id TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    memory_type TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    expires_at TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_user_memory_lookup ON user_memory (user_id, memory_type, key);
CREATE INDEX idx_user_memory_user_id ON user_memory (user_id);
CREATE INDEX idx_user_memory_type ON user_memory (memory_type);
CREATE INDEX idx_user_memory_expires ON user_memory (expires_at);

CREATE TABLE files (
    id TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    filename TEXT NOT NULL,
    storage_key TEXT NOT NULL,
    mime_type TEXT NOT NULL,
    file_size INTEGER NOT NULL,
    checksum TEXT,
    metadata TEXT NOT NULL DEFAULT '{}',
    status TEXT NOT NULL DEFAULT 'active',
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_files_storage_key ON files (storage_key);
CREATE INDEX idx_files_user_created ON files (user_id, created_at DESC, id DESC);
CREATE INDEX idx_files_status ON files (status);
CREATE INDEX idx_files_created ON files (created_at DESC, id DESC);

CREATE TABLE system_logs (
    id TEXT PRIMARY KEY NOT NULL,
    action TEXT NOT NULL,
    user_id TEXT,
    entity_type TEXT,
    entity_id TEXT,
    level TEXT NOT NULL DEFAULT 'info',
    message TEXT,
    context TEXT NOT NULL DEFAULT '{}',
    trace_id TEXT,
    ip_address TEXT,
    user_agent TEXT,
    request_uri TEXT,
    created_at TEXT NOT NULL
);
CREATE INDEX idx_system_logs_level ON system_logs (level);
CREATE INDEX idx_system_logs_trace_id ON system_logs (trace_id);
CREATE INDEX idx_system_logs_created_at ON system_logs (created_at);
CREATE INDEX idx_system_logs_recent ON system_logs (created_at DESC, id DESC);
CREATE INDEX idx_system_logs_user ON system_logs (user_id, created_at DESC, id DESC);
CREATE INDEX idx_system_logs_entity ON system_logs (entity_type, entity_id, created_at DESC, id DESC);
CREATE INDEX idx_system_logs_action ON system_logs (action, created_at DESC, id DESC);

-- A statement that inserts 0 here refuses its whole batch; the table stays empty.
CREATE TABLE dal_guard (
    ok INTEGER NOT NULL CONSTRAINT dal_guard_holds CHECK (ok = 1)
);

-- What D1 committed lately, by the id that the writer gave: a repeat after a lost answer is refused by it. `counts` holds
-- how many rows a delete took, which nobody could find out afterwards. Old rows are deleted; SQLite itself writes none.
CREATE TABLE dal_commits (
    id TEXT PRIMARY KEY NOT NULL,
    counts TEXT NOT NULL DEFAULT '[]'
) WITHOUT ROWID;
