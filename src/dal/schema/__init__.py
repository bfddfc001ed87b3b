"""The schema engine: which migrations a database has, which it lacks, and how they are applied and taken back.

Migrations are plain SQL files, `NNNN_name.sql`; their ledger is a table in the database. The engine knows databases
only as a `Connection` that fetches rows and runs a batch atomically, so it works wherever a batch is a transaction.
What a store needs at its opening is loaded with this package, everything else when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from dal.schema.backups.backup import Backup, Restored, backup, restore
    from dal.schema.checking.explain import Explained, explain
    from dal.schema.checking.validate import ValidationReport, validate
    from dal.schema.checking.verify import VerifyReport, drift, verify
    from dal.schema.deploying.deploy import deploy
    from dal.schema.deploying.deployment import Deployment
    from dal.schema.deploying.environments import Environment, Project, load_environments
    from dal.schema.deploying.statuses import EnvironmentStatus, status_all
    from dal.schema.inspection.compare import Difference, differences
    from dal.schema.inspection.objects import Snapshot, snapshot
    from dal.schema.linting import lint

__all__ = [
    "LEDGER_TABLES",
    "Applied",
    "Backup",
    "Connection",
    "Deployment",
    "Difference",
    "Environment",
    "EnvironmentStatus",
    "Explained",
    "Finding",
    "Migrated",
    "Migration",
    "MigrationSet",
    "Plan",
    "Progress",
    "Project",
    "Reader",
    "Restored",
    "SchemaStatus",
    "Snapshot",
    "Statement",
    "ValidationReport",
    "VerifyReport",
    "backup",
    "baseline",
    "deploy",
    "differences",
    "down",
    "drift",
    "explain",
    "library_set",
    "lint",
    "load_environments",
    "new_migration",
    "plan",
    "read_set",
    "restore",
    "schema_directory",
    "snapshot",
    "split_statements",
    "status",
    "status_all",
    "up",
    "validate",
    "verify",
]

_HOMES = {
    "backups.backup": ("Backup", "Restored", "backup", "restore"),
    "checking.explain": ("Explained", "explain"),
    "checking.validate": ("ValidationReport", "validate"),
    "checking.verify": ("VerifyReport", "drift", "verify"),
    "deploying.deploy": ("deploy",),
    "deploying.deployment": ("Deployment",),
    "deploying.environments": ("Environment", "Project", "load_environments"),
    "deploying.statuses": ("EnvironmentStatus", "status_all"),
    "inspection.compare": ("Difference", "differences"),
    "inspection.objects": ("Snapshot", "snapshot"),
    "linting": ("lint",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
