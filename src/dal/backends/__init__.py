"""The stores: memory, file, SQLite and PostgreSQL."""
