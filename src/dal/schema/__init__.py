"""The schema engine: which migrations a database has, which it lacks, and how they are applied.

Migrations are plain SQL files, `NNNN_name.sql`; their ledger is a table in the database. The engine knows databases
only as a `Connection` that fetches rows and runs a batch atomically, so it works wherever a batch is a transaction.
"""

from dal.schema.apply import Migrated, SchemaStatus, status, up
from dal.schema.connection import AlreadyAppliedError, Connection
from dal.schema.files import Migration, migrations, schema_directory
from dal.schema.ledger import Applied
from dal.schema.statements import split_statements

__all__ = [
    "AlreadyAppliedError",
    "Applied",
    "Connection",
    "Migrated",
    "Migration",
    "SchemaStatus",
    "migrations",
    "schema_directory",
    "split_statements",
    "status",
    "up",
]
