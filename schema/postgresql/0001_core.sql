-- Purpose: users, chats, messages, memory, files and the audit trail.
-- Locks:   none on existing tables; creates new ones only.
-- Ids are UUIDs made by the library. Keys compare by code point (COLLATE "C"), as on every other backend.

CREATE TABLE users (
    id UUID PRIMARY KEY,
    clerk_id VARCHAR(255) COLLATE "C",
    email VARCHAR(255),
    name VARCHAR(255),
    profile JSONB NOT NULL DEFAULT '{}',
    preferences JSONB NOT NULL DEFAULT '{}',
    status VARCHAR(50) NOT NULL DEFAULT 'active',
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    last_active_at TIMESTAMP WITH TIME ZONE,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_users_clerk_id ON users (clerk_id);
CREATE INDEX idx_users_email ON users (email);
CREATE INDEX idx_users_status ON users (status);
CREATE INDEX idx_users_created ON users (created_at DESC, id DESC);

CREATE TABLE chat_sessions (
    id UUID PRIMARY KEY,
    chat_id VARCHAR(255) COLLATE "C" NOT NULL,
    user_id UUID REFERENCES users (id) ON DELETE SET NULL,
    title VARCHAR(255),
    profile VARCHAR(50) NOT NULL DEFAULT 'general',
    metadata JSONB NOT NULL DEFAULT '{}',
    status VARCHAR(50) NOT NULL DEFAULT 'active',
    message_count INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    last_message_at TIMESTAMP WITH TIME ZONE,
    last_activity_at TIMESTAMP WITH TIME ZONE NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_chat_sessions_chat_id ON chat_sessions (chat_id);
CREATE INDEX idx_chat_sessions_user_id ON chat_sessions (user_id);
CREATE INDEX idx_chat_sessions_profile ON chat_sessions (profile);
CREATE INDEX idx_chat_sessions_status ON chat_sessions (status);
CREATE INDEX idx_chat_sessions_last_message ON chat_sessions (last_message_at);
CREATE INDEX idx_chat_sessions_user_recent ON chat_sessions (user_id, last_message_at DESC);
CREATE INDEX idx_chat_sessions_activity ON chat_sessions (last_activity_at DESC, id DESC);
CREATE INDEX idx_chat_sessions_user_activity ON chat_sessions (user_id, last_activity_at DESC, id DESC);

CREATE TABLE messages (
    id UUID PRIMARY KEY,
    chat_session_id UUID NOT NULL REFERENCES chat_sessions (id) ON DELETE CASCADE,
    role VARCHAR(50) NOT NULL,
    content TEXT NOT NULL,
    metadata JSONB NOT NULL DEFAULT '{}',
    sequence_number INTEGER NOT NULL,
    token_count INTEGER,
    abuse_flagged BOOLEAN NOT NULL DEFAULT FALSE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE INDEX idx_messages_chat_session ON messages (chat_session_id);
CREATE INDEX idx_messages_role ON messages (role);
CREATE UNIQUE INDEX idx_messages_sequence ON messages (chat_session_id, sequence_number);
CREATE INDEX idx_messages_created_at ON messages (created_at);
CREATE INDEX idx_messages_abuse_flagged ON messages (abuse_flagged);
CREATE INDEX idx_messages_chat_recent ON messages (chat_session_id, created_at DESC);

CREATE TABLE user_memory (
    id UUID PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    memory_type VARCHAR(100) COLLATE "C" NOT NULL,
    key VARCHAR(255) COLLATE "C" NOT NULL,
    value JSONB NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_user_memory_lookup ON user_memory (user_id, memory_type, key);
CREATE INDEX idx_user_memory_user_id ON user_memory (user_id);
CREATE INDEX idx_user_memory_type ON user_memory (memory_type);
CREATE INDEX idx_user_memory_expires ON user_memory (expires_at);

CREATE TABLE files (
    id UUID PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    filename VARCHAR(255) NOT NULL,
    storage_key VARCHAR(255) COLLATE "C" NOT NULL,
    mime_type VARCHAR(255) NOT NULL,
    file_size BIGINT NOT NULL,
    checksum VARCHAR(255),
    metadata JSONB NOT NULL DEFAULT '{}',
    status VARCHAR(50) NOT NULL DEFAULT 'active',
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX idx_files_storage_key ON files (storage_key);
CREATE INDEX idx_files_user_created ON files (user_id, created_at DESC, id DESC);
CREATE INDEX idx_files_status ON files (status);
CREATE INDEX idx_files_created ON files (created_at DESC, id DESC);

CREATE TABLE system_logs (
    id UUID PRIMARY KEY,
    action VARCHAR(255) NOT NULL,
    user_id VARCHAR(255),
    entity_type VARCHAR(255),
    entity_id VARCHAR(255),
    level VARCHAR(20) NOT NULL DEFAULT 'info',
    message TEXT,
    context JSONB NOT NULL DEFAULT '{}',
    trace_id VARCHAR(255),
    ip_address INET,
    user_agent TEXT,
    request_uri TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL
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
