"""The rules: name, severity, where they are asked, why, and the safe way.

An error is what loses data, what fails on a table that has rows, what closes a table to readers and writers for as long
as it is large, or what cannot be taken up again after it was cut off: `up` refuses it until the file says
`-- dal:allow <rule>`. A warning is what holds up writers only, or breaks a version of the application that may or may
not run: only the operator knows. One name has one meaning on every engine; where an engine knows no such trouble, the
rule is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from dal.schema.connection import Place
from dal.schema.linting.words import one_of

_POSTGRESQL: Final[frozenset[Place]] = frozenset({"postgresql"})
_SQLITE: Final[frozenset[Place]] = frozenset({"sqlite", "d1"})
_D1: Final[frozenset[Place]] = frozenset({"d1"})
_EVERYWHERE: Final = _POSTGRESQL | _SQLITE


@dataclass(frozen=True, slots=True)
class Rule:
    """places   where it is asked.
    way_back  it is asked of files in rollback/ too.
    """

    name: str
    severity: Literal["error", "warning"]
    places: frozenset[Place]
    why: str
    safe_way: str
    way_back: bool = False


_RULES: Final = (
    # What loses data.
    Rule(
        "drop-table", "error", _EVERYWHERE,
        "The rows are gone; only a backup brings them back.",
        "Stop using the table in one release and drop it in a later one, in a file that says so with `allow`",
    ),
    Rule(
        "drop-column", "error", _EVERYWHERE,
        "What was in it is gone, and a running version that still reads it fails.",
        "Stop using the column in one release and drop it in a later one, in a file that says so with `allow`",
    ),
    Rule(
        "drop-schema", "error", _EVERYWHERE,
        "It takes every table in it along.",
        "Drop the tables one by one, so that each is seen",
    ),
    Rule(
        "drop-cascade", "error", _POSTGRESQL,
        "CASCADE drops whatever depends on it, columns with their content included.",
        "Leave CASCADE out: PostgreSQL then names what depends on it; change that first",
    ),
    Rule(
        "truncate", "error", _POSTGRESQL,
        "Every row is deleted.",
        "Delete what is meant, with a WHERE",
    ),
    Rule(
        "delete-without-where", "error", _EVERYWHERE,
        "Every row is deleted; `WHERE true` counts as none.",
        "Say in a WHERE which rows",
    ),
    Rule(
        "update-without-where", "error", _EVERYWHERE,
        "What the column held is overwritten in every row, and no way back knows it.",
        "Say in a WHERE which rows, or write into a new column",
    ),
    Rule(
        "rebuild-deletes-children", "error", _SQLITE,
        "DROP TABLE deletes the rows first, and the foreign keys of other tables act on that.",
        "Write `-- dal:foreign-keys=off` in the header: the keys are checked before the commit",
        way_back=True,
    ),
    Rule(
        "replace-deletes-children", "error", _SQLITE,
        "REPLACE deletes the old row before it inserts the new one, and ON DELETE acts on that.",
        "Write INSERT … ON CONFLICT (…) DO UPDATE SET …",
        way_back=True,
    ),
    # What fails where there are rows, which a trial on an empty database does not show.
    Rule(
        "not-null-without-default", "error", _EVERYWHERE,
        "Rows that are there have no value for it.",
        "Give it a constant DEFAULT, or add it without NOT NULL, fill it, and demand NOT NULL later",
    ),
    Rule(
        "reference-with-default", "error", _SQLITE,
        "SQLite refuses a new column that has both, where the table has rows.",
        "Add it without the default and fill it with an UPDATE",
    ),
    # What closes a table, or has every row computed.
    Rule(
        "add-column-volatile-default", "error", _EVERYWHERE,
        "PostgreSQL computes it for each row under an exclusive lock; SQLite refuses it where the table has rows.",
        "Add the column without it, fill it in portions, and set the default for new rows",
    ),
    Rule(
        "change-column-type", "error", _POSTGRESQL,
        "Table and indexes are written anew under an exclusive lock, and a running version may not take the type.",
        "Add a column of the new type, write to both, fill it in portions, switch over, and drop the old one later",
    ),
    Rule(
        "set-not-null", "error", _POSTGRESQL,
        "The whole table is read under an exclusive lock.",
        "In files of their own: ADD CONSTRAINT … CHECK (… IS NOT NULL) NOT VALID; VALIDATE CONSTRAINT; SET NOT NULL, "
        "which then reads nothing",
    ),
    Rule(
        "check-not-valid", "error", _POSTGRESQL,
        "The whole table is read under an exclusive lock.",
        "Add the CHECK with NOT VALID in one file, VALIDATE CONSTRAINT in the next",
    ),
    Rule(
        "unique-constraint-blocks", "error", _POSTGRESQL,
        "Its index is built under an exclusive lock.",
        "CREATE UNIQUE INDEX CONCURRENTLY in a no-transaction file, then ADD CONSTRAINT … USING INDEX",
    ),
    Rule(
        "table-rewrite", "error", _POSTGRESQL,
        "The table is written anew under an exclusive lock.",
        "Do it in a maintenance window",
    ),
    Rule(
        "vacuum-full", "error", _POSTGRESQL,
        "The table is written anew under an exclusive lock.",
        "VACUUM without FULL, or pg_repack; neither belongs into a migration",
    ),
    Rule(
        "cluster", "error", _POSTGRESQL,
        "The table is written anew under an exclusive lock.",
        "pg_repack, outside migrations",
    ),
    Rule(
        "reindex", "error", _POSTGRESQL,
        "Writers wait until it ends, and every query whose plan looks at the index.",
        "REINDEX … CONCURRENTLY in a no-transaction file",
    ),
    Rule(
        "create-index-not-concurrent", "warning", _POSTGRESQL,
        "Writers wait until the index is built: seconds for a million rows, on a large table minutes.",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS in a file with `-- dal:no-transaction`",
    ),
    Rule(
        "foreign-key-not-valid", "warning", _POSTGRESQL,
        "Writers of both tables wait until every row is checked.",
        "Add it with NOT VALID in one file, VALIDATE CONSTRAINT in the next",
    ),
    Rule(
        "drop-index-not-concurrent", "warning", _POSTGRESQL,
        "It needs an exclusive lock, if only for a moment, and everyone queues behind it while it waits.",
        "DROP INDEX CONCURRENTLY IF EXISTS in a file with `-- dal:no-transaction`",
    ),
    Rule(
        "refresh-not-concurrent", "warning", _POSTGRESQL,
        "Readers wait until the view is filled.",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY, which needs a unique index",
    ),
    Rule(
        "update-every-row", "warning", _POSTGRESQL,
        "All rows stay locked until the commit, and the table doubles until it is vacuumed.",
        "Fill the column in portions of some thousand rows, outside the migration",
    ),
    # What breaks a version that still runs.
    Rule(
        "rename", "warning", frozenset({"postgresql", "d1"}),
        "A version of the application that still runs asks for the old name.",
        "Add the new name beside the old one (write both columns, or make a view); drop the old one a release later",
    ),
    Rule(
        "phase-mismatch", "error", _EVERYWHERE,
        "`phase=expand` promises that the version that runs goes on working.",
        "Move it to a file with `-- dal:phase=contract`, applied when the old version is gone",
    ),
    # How the file is run.
    Rule(
        "concurrently-in-transaction", "error", _POSTGRESQL,
        "PostgreSQL refuses it.",
        "Put it in a file with `-- dal:no-transaction`",
        way_back=True,
    ),
    Rule(
        "needs-no-transaction", "error", frozenset({"postgresql", "sqlite"}),
        "The engine refuses it.",
        "Put it in a file with `-- dal:no-transaction`",
        way_back=True,
    ),
    Rule(
        "not-repeatable", "error", _EVERYWHERE,
        "A file without a transaction is taken up where it was cut off; its last statement may have been done already.",
        "Write IF NOT EXISTS, IF EXISTS, OR REPLACE or ON CONFLICT",
        way_back=True,
    ),
    Rule(
        "foreign-keys-pragma", "warning", _SQLITE,
        "It is ignored inside a transaction; whoever wrote it counts on it.",
        "Write `-- dal:foreign-keys=off` in the header (SQLite); D1 has only PRAGMA defer_foreign_keys",
        way_back=True,
    ),
    Rule(
        "dynamic-sql", "warning", _POSTGRESQL,
        "EXECUTE runs a text that is put together while it runs; no linter can read it.",
        "Write the statements out, or look at them with care",
    ),
    # Habits that pay.
    Rule(
        "foreign-key-without-on-delete", "warning", _EVERYWHERE,
        "Without it a delete is refused; readers cannot tell whether that is meant.",
        "Write ON DELETE CASCADE, SET NULL, RESTRICT or NO ACTION",
    ),
    # What D1 does not take.
    Rule(
        "denied-on-d1", "error", _D1,
        "D1 refuses it, while SQLite takes it.",
        "Leave it out",
        way_back=True,
    ),
    Rule(
        "statement-too-long", "error", _D1,
        "D1 takes statements of up to 100,000 bytes.",
        "Split the rows over several statements",
        way_back=True,
    ),
    Rule(
        "d1-limit", "error", _D1,
        "D1's limits are lower than SQLite's: 100 columns, 5 SELECTs in a UNION, expressions 100 deep.",
        "Split it",
        way_back=True,
    ),
    Rule(
        "virtual-table-export", "warning", _D1,
        "D1 refuses to export a database that holds a virtual table, so there is no backup by export.",
        "Keep it rebuildable, and drop it for the export; or back up by bookmark (Time Travel)",
    ),
    Rule(
        "trigger-splitting", "warning", _D1,
        "D1's service splits what it is sent at semicolons, and has been seen to tear triggers written like this.",
        "Write BEGIN and END of the trigger in upper case, and brackets around CASE … END",
        way_back=True,
    ),
    # The second reader.
    Rule(
        "squawk-missing", "warning", _POSTGRESQL,
        "The rules above are asked all the same; those of squawk are not.",
        "Install the extra `dal[lint]`",
    ),
)  # fmt: skip

RULES: Final[dict[str, Rule]] = {rule.name: rule for rule in _RULES}

#: What a file with `phase=expand` must not do.
BREAKS_RUNNING: Final = one_of(
    "drop-table drop-column drop-schema drop-cascade truncate delete-without-where update-without-where rename "
    "change-column-type set-not-null not-null-without-default"
)


def explain_rules() -> tuple[Rule, ...]:
    """Every rule, in the order in which the reference lists them."""
    return _RULES
