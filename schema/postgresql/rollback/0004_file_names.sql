-- dal:no-transaction
DROP INDEX CONCURRENTLY IF EXISTS idx_files_user_name;
