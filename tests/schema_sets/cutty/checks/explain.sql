-- The queries whose plans the deployment plan asks for.

-- expect-index: idx_files_user_id or idx_files_user_created
SELECT * FROM files WHERE user_id = 'test';

-- expect-index: idx_file_access_logs_file
SELECT * FROM file_access_logs WHERE file_id = 'test';

-- The queue's next task
-- expect-index: idx_file_processing_queue_next
SELECT * FROM file_processing_queue WHERE status = 'queued' ORDER BY priority DESC, available_at LIMIT 1;

-- Uploads to be cleaned up: a partial index
-- expect-index: idx_multipart_uploads_active_expiry
SELECT * FROM multipart_uploads WHERE status = 'active' AND expires_at < '2026-01-01';
