-- Purpose: a file of a user by its name, for uploads that are refused where there is one (`if_absent`).
-- Locks:   the whole database while the index is built, as every write of SQLite; on D1 too.
CREATE INDEX idx_files_user_name ON files (user_id, filename);
