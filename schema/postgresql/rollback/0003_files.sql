-- Takes the tables away, rows included; `files` itself stays.
DROP TABLE cost_tracking;
DROP TABLE pricing_tiers;
DROP TABLE storage_metrics;
DROP TABLE file_processing_queue;
DROP TABLE user_quotas;
DROP TABLE file_access_logs;
DROP TABLE file_permissions;
DROP TABLE multipart_parts;
DROP TABLE multipart_uploads;
DROP TABLE file_contents;
