-- Takes everything away, rows included.
DROP TABLE dal_commits;
DROP TABLE dal_guard;
DROP TABLE system_logs;
DROP TABLE files;
DROP TABLE user_memory;
DROP TABLE messages;
DROP TABLE chat_sessions;
DROP TABLE users;
