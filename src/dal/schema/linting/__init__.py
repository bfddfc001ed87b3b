"""What in migration files is dangerous: found by reading them, without a database.

Rules by name, in `rules`; each is silenced for one file by `-- dal:allow <rule>` in its header.
"""

from dal.schema.linting.linter import lint
from dal.schema.linting.rules import Rule, explain_rules

__all__ = ["Rule", "explain_rules", "lint"]
