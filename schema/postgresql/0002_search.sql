-- dal:optional
-- Purpose: full-text search over messages. May be left out: search then raises UnsupportedError.
-- Locks:   SHARE ROW EXCLUSIVE on messages for an instant (the foreign key). Rows already there are indexed by
--          `dal search rebuild`.
-- The library makes the terms; they stand in a table of their own, so that the index can be dropped and rebuilt, a bulk
-- load can go before it, and a message's own row stays narrow.

CREATE TABLE message_search (
    message_id UUID PRIMARY KEY REFERENCES messages (id) ON DELETE CASCADE,
    terms TSVECTOR NOT NULL
);
CREATE INDEX idx_message_search_terms ON message_search USING gin (terms);
