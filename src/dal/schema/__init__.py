"""The schema engine: which migrations a database has, which it lacks, and how they are applied and taken back.

Migrations are plain SQL files, `NNNN_name.sql`; their ledger is a table in the database. The engine knows databases
only as a `Connection` that fetches rows and runs a batch atomically, so it works wherever a batch is a transaction.
"""

from dal.schema.apply import down, up
from dal.schema.baseline import baseline
from dal.schema.connection import Connection, Reader
from dal.schema.files import Migration, MigrationSet, library_set, read_set, schema_directory
from dal.schema.findings import Finding
from dal.schema.ledger import LEDGER_TABLES, Applied
from dal.schema.new import new_migration
from dal.schema.plan import Plan, plan
from dal.schema.progress import Migrated, Progress
from dal.schema.statements import Statement, split_statements
from dal.schema.status import SchemaStatus, status

__all__ = [
    "LEDGER_TABLES",
    "Applied",
    "Connection",
    "Finding",
    "Migrated",
    "Migration",
    "MigrationSet",
    "Plan",
    "Progress",
    "Reader",
    "SchemaStatus",
    "Statement",
    "baseline",
    "down",
    "library_set",
    "new_migration",
    "plan",
    "read_set",
    "schema_directory",
    "split_statements",
    "status",
    "up",
]
