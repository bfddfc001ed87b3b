DROP INDEX idx_files_user_name;
