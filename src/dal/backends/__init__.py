"""The stores: memory, file, SQLite, PostgreSQL and D1."""
