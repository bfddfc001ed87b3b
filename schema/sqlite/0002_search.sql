-- dal:optional
-- Purpose: full-text search over messages. May be left out: search then raises UnsupportedError.
-- Locks:   none on existing tables. Rows already there are indexed by `dal search rebuild`.
-- The index holds terms made by the library, separated by spaces; the ascii tokenizer takes every character beyond ASCII
-- as a letter, so it splits exactly there. Contentless and without positions: the smallest form FTS5 has.

CREATE VIRTUAL TABLE message_search USING fts5 (terms, content = '', detail = 'none', tokenize = 'ascii');
