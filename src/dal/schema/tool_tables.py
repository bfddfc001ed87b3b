"""The names of this tool's own tables: no schema of anybody's, and nobody's to change."""

from __future__ import annotations

import re
from typing import Final

#: The ledger of SQLite and D1 (wrangler's own), that of PostgreSQL, what both leave out, and the lock.
LEDGER_TABLES: Final = frozenset({"d1_migrations", "dal_migrations", "dal_migration_details", "dal_migration_lock"})
#: Tables, triggers, functions and counters that a live move keeps while it is on, or leaves as a fence.
MOVE_OBJECTS: Final = re.compile(r"dal_(sync|gate|unit|applying|capture|fence|truncate|no_truncate|version)(?![a-z])")
