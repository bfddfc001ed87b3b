-- What the deployment plan and the storage follow-ups (#64) promise of the file service's database. Each statement
-- answers one number. SQLite's, D1's and the migration tools' own tables are not counted.

-- The twenty tables, by name: core, storage, metrics, access control, alerting
-- expect: 20
SELECT count(*) FROM sqlite_master
WHERE type = 'table'
  AND name IN ('users', 'files', 'saved_filters', 'api_keys', 'audit_logs',
               'multipart_uploads', 'file_migrations', 'file_access_logs', 'file_processing_queue',
               'storage_metrics', 'cost_tracking', 'pricing_tiers', 'user_quotas', 'billing_records',
               'security_events', 'security_incidents', 'file_permissions',
               'alert_rules', 'alert_notifications', 'alert_escalations');

-- and no others
-- expect: 20
SELECT count(*) FROM sqlite_master
WHERE type = 'table'
  AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
  AND name NOT LIKE '\_cf\_%' ESCAPE '\'
  AND name <> 'd1_migrations'
  AND name NOT LIKE 'dal\_migration%' ESCAPE '\';

-- The three tables that the storage service asks for (#64), with every column it names
-- expect: 9
SELECT count(*) FROM pragma_table_info('files')
WHERE name IN ('id', 'user_id', 'filename', 'r2_key', 'mime_type', 'file_size', 'checksum', 'created_at', 'updated_at');

-- expect: 12
SELECT count(*) FROM pragma_table_info('multipart_uploads')
WHERE name IN ('upload_id', 'file_id', 'user_id', 'r2_key', 'filename', 'total_size', 'parts_uploaded', 'session_data',
               'status', 'created_at', 'expires_at', 'completed_at');

-- expect: 12
SELECT count(*) FROM pragma_table_info('file_access_logs')
WHERE name IN ('id', 'file_id', 'user_id', 'action', 'success', 'error_message', 'bytes_transferred', 'duration_ms',
               'ip_address', 'user_agent', 'metadata', 'timestamp');

-- expect: 26
SELECT count(*) FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL;

-- D1 lets nobody ask about its own tables, so they are left out before the question.
-- expect: 22
SELECT count(*) FROM sqlite_master AS t, pragma_foreign_key_list(t.name)
WHERE t.type = 'table' AND t.name NOT LIKE '\_cf\_%' ESCAPE '\';

-- The tiers that everyone's quota refers to
-- expect: 2
SELECT count(*) FROM pricing_tiers WHERE id IN ('free', 'pro');

-- No row refers to one that is not there
-- expect: 0
SELECT count(*) FROM pragma_foreign_key_check;
