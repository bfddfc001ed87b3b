-- dal:no-transaction
-- Purpose: a file of a user by its name, for uploads that are refused where there is one (`if_absent`).
-- Locks:   none that keeps readers or writers out; waits for transactions that were open before it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_files_user_name ON files (user_id, filename);
