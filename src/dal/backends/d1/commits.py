"""A batch that may be sent twice and is carried out once.

With every batch goes a row of `dal_commits` under an id made here. Sent again after a lost answer, the batch is refused
as a whole where the first one arrived; the row then tells that it did, and what could not be found out afterwards: how
many rows a delete took. The rest of what the lost answer said is read back. To give up for certain, the id is burnt: a
row of its own takes it, so that a request that is still on its way comes too late. It costs one written row a batch.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Final, cast

import orjson

from dal.backends.d1.transport import Rows
from dal.backends.d1.wire import Entry, entries_of
from dal.backends.sql import Statement
from dal.limits import D1_COMMITS_KEPT_S

_BEGIN: Final = "INSERT INTO dal_commits (id) VALUES (?)"
_BEGIN_COUNTED: Final = "INSERT INTO dal_commits (id, counts) VALUES (?, json_array(changes()))"
_COUNT: Final = "UPDATE dal_commits SET counts = json_insert(counts, '$[#]', changes()) WHERE id = ?"
_BURN: Final = "INSERT INTO dal_commits (id, counts) VALUES (?, 'burnt') ON CONFLICT (id) DO NOTHING"
_FIND: Final = "SELECT counts FROM dal_commits WHERE id = ?"
BURNT: Final = "burnt"
#: By the server's clock: a client whose clock runs ahead takes nobody's row away.
_PRUNE: Final = f"DELETE FROM dal_commits WHERE id < printf('%012x', (unixepoch() - {D1_COMMITS_KEPT_S}) * 1000)"  # noqa: S608


def new_commit_id() -> str:
    """An id that sorts by time: milliseconds, and chance behind them."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


class Commit:
    """A batch with its id, as entries of one request.

    prune  takes old ids away on this occasion.
    """

    def __init__(self, statements: Sequence[Statement], *, prune: bool = False) -> None:
        self.id = new_commit_id()
        self.statements = statements
        self.entries: list[Entry] = []
        #: The statement that each entry belongs to; -1 for one of ours.
        self._owners: list[int] = []
        if not any(statement.counted for statement in statements):
            self._add_own(Statement(_BEGIN, (self.id,)))
        is_begun = bool(self.entries)
        for place, statement in enumerate(statements):
            for entry in entries_of(statement):
                self.entries.append(entry)
                self._owners.append(place)
            if statement.counted:
                self._add_own(Statement(_COUNT if is_begun else _BEGIN_COUNTED, (self.id,)))
                is_begun = True
        if prune:
            self._add_own(Statement(_PRUNE))

    @property
    def burn(self) -> list[Entry]:
        """Takes the id, if the batch has not; the last row of it says who did: BURNT, or counts for `recalled`."""
        return [entry for sql in (_BURN, _FIND) for entry in entries_of(Statement(sql, (self.id,)))]

    @property
    def recall(self) -> list[Statement]:
        """What must be read to know what the lost answer said."""
        return [statement.recall() for statement in self.statements if statement.recall is not None]

    def rows(self, found: Sequence[Rows]) -> list[Rows]:
        """The rows of each statement, from those of the entries."""
        rows: list[Rows] = [[] for _ in self.statements]
        for owner, part in zip(self._owners, found, strict=True):
            if owner >= 0:
                rows[owner] = rows[owner] + part if rows[owner] else part
        return rows

    def recalled(self, kept: str, found: Sequence[Rows]) -> list[Rows]:
        """The rows of each statement, from the counts kept with the commit and the rows that `recall` gave.

        LookupError where inserted rows are gone already, and with them what their insert said.
        """
        counts, parts = iter(cast("list[int]", orjson.loads(kept))), iter(found)
        rows: list[Rows] = []
        for statement in self.statements:
            count = next(counts) if statement.counted else None
            ones: Rows = [(1,)] * (count or 0)
            part = next(parts) if statement.recall is not None else ones
            if statement.many and statement.returns and len(part) != len(statement.params):
                raise LookupError("rows of the batch were deleted since")
            rows.append(part if count != 0 else [])
        return rows

    def _add_own(self, statement: Statement) -> None:
        self.entries += entries_of(statement)
        self._owners.append(-1)
