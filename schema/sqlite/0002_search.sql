-- dal:optional
-- Purpose: full-text search over messages. May be left out: search then raises UnsupportedError.
-- Locks:   none on existing tables. Rows already there are indexed by `dal search rebuild`.
-- The index holds terms made by the library, separated by spaces; the ascii tokenizer takes every character beyond ASCII
-- as a letter, so it splits exactly there. No positions, no sizes. The terms themselves are kept, because without them a
-- row cannot be taken out again: a deleted message leaves no trace here.

CREATE VIRTUAL TABLE message_search USING fts5 (terms, detail = 'none', columnsize = 0, tokenize = 'ascii');
CREATE TRIGGER message_search_delete AFTER DELETE ON messages BEGIN DELETE FROM message_search WHERE rowid = OLD.doc_id; END;
