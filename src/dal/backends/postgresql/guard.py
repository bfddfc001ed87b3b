"""Keeps statements inside a scratch schema of a real database.

Migration files are written for `public` and may say so; tried in another schema of the same database, `DROP TABLE
public.users` would be the end of the real one. So only kinds of statement that act on the search path pass, and none
that names another schema, not even in a string, which a DO block might execute. What cannot be judged is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from dal.schema.connection import StatementError

_OBJECTS: Final = (
    "TABLE|INDEX|VIEW|SEQUENCE|TYPE|DOMAIN|FUNCTION|PROCEDURE|ROUTINE|AGGREGATE|TRIGGER|RULE|POLICY|STATISTICS|"
    "COLLATION"
)
_ADJECTIVES: Final = "TEMP|TEMPORARY|UNLOGGED|UNIQUE|MATERIALIZED|RECURSIVE|CONSTRAINT"
_KNOWN: Final = re.compile(
    rf"(?:CREATE|ALTER|DROP)\s+(?:OR\s+REPLACE\s+)?(?:(?:{_ADJECTIVES})\s+)*(?:{_OBJECTS})\b"
    r"|COMMENT\s+ON\b|(?:GRANT|REVOKE)\b.*?\bON\b"
    r"|SET\s+(?:LOCAL\s+|SESSION\s+)?(?!(?:ROLE|SESSION|AUTHORIZATION|SCHEMA)\b)\w"
    r"|REINDEX\s+(?:INDEX|TABLE)\b|REFRESH\s+MATERIALIZED\b|ROLLBACK\s+(?:\w+\s+)?TO\b"
    r"|(?:INSERT|UPDATE|DELETE|MERGE|SELECT|WITH|VALUES|TRUNCATE|DO|CALL|EXPLAIN|ANALYZE|VACUUM|CLUSTER|LOCK)\b"
    r"|(?:SAVEPOINT|RELEASE|RESET)\b",
    re.IGNORECASE | re.DOTALL,
)
_BEYOND: Final = re.compile(
    r"\b(?:SET|IN|ON)\s+SCHEMA\b"
    r"|\bON\s+(?:DATABASE|ROLE|TABLESPACE|EXTENSION|LANGUAGE|FOREIGN|LARGE|SERVER|PARAMETER|EVENT|PUBLICATION)\b",
    re.IGNORECASE,
)
_STRINGS: Final = re.compile(r"'(?:[^']|'')*'")
_COMMENTS: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


class Guard:
    """Knows the other schemas of the database, by name."""

    def __init__(self, others: Sequence[str]) -> None:
        names = "|".join(re.escape(name) for name in others) or "(?!)"
        self._anywhere = re.compile(rf'(?<!\w)(?:{names})"?\."?\w|\bsearch_path\b', re.IGNORECASE)
        self._outside_strings = re.compile(rf'(?<!\w)(?:{names})"?\s*\.', re.IGNORECASE)

    def require_inside(self, index: int, statement: str) -> None:
        """Raises StatementError for a statement that might reach beyond the schema."""
        text = _COMMENTS.sub(" ", statement).strip()
        bare = _STRINGS.sub("''", text)
        if not _KNOWN.match(text) or any(
            (self._anywhere.search(text), self._outside_strings.search(bare), _BEYOND.search(bare))
        ):
            raise StatementError(
                index,
                "not run: the role may not make a scratch database, so migrations are tried in a schema of the real "
                "one, and this statement might reach beyond it; give the role CREATEDB",
            )
