"""What a live move makes in a database of SQLite or D1: registry, gates, and triggers that see every writer there is.

AFTER triggers register what changed, where this store is the unit's primary. BEFORE triggers refuse what is not an
applier's where it is not, but for what the delete of a parent takes along: the primary's own cascade will be copied.
Nothing is taken for granted of other writers' connections: without recursive triggers a row that REPLACE removes has
no DELETE of its own, so the BEFORE triggers mark whichever row holds a unique key of the new one; marking one too many
is harmless. Every statement is one line and holds no parameter but those of gates, as D1 wants them.
"""

# ruff: noqa: S608  (names come from dal.tables only)
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import orjson

from dal.backends.sql.dialect import Statement, Violation
from dal.backends.sql.registry import Columns, RegistrySql
from dal.backends.sql.replica import SqlReplica
from dal.errors import ConflictError
from dal.replica import EPOCH, UNIT_OF, UNITS, Gate
from dal.tables import TABLES, Parent, Table

#: By this text D1's answers are told; SQLite has a code for what a trigger refuses.
FENCED: Final = "dal: fenced"
#: The move's own tables: no schema of anybody's, and not there without a move.
MOVE_TABLES: Final = ("dal_sync", "dal_counter", "dal_gate", "dal_applying")
_FENCE_TABLES: Final = ("dal_gate", "dal_applying")

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS dal_sync (entity TEXT NOT NULL, pk TEXT NOT NULL, ver INTEGER NOT NULL, "
    "deleted INTEGER NOT NULL, state INTEGER NOT NULL, hash INTEGER, PRIMARY KEY (entity, pk)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS dal_sync_pending ON dal_sync (entity, state, pk) WHERE state > 0",
    "CREATE TABLE IF NOT EXISTS dal_counter (unit TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS dal_gate (unit TEXT PRIMARY KEY NOT NULL, move TEXT NOT NULL, side TEXT NOT NULL, "
    "role TEXT NOT NULL, epoch INTEGER NOT NULL, next_epoch INTEGER NOT NULL, phase TEXT NOT NULL, "
    "cursor TEXT NOT NULL, deadline_ms INTEGER NOT NULL, lease_owner TEXT NOT NULL, lease_until_ms INTEGER NOT NULL, "
    "shadow_percent INTEGER NOT NULL, min_library_version TEXT NOT NULL, notes TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS dal_applying (one INTEGER PRIMARY KEY CHECK (one = 1), is_on INTEGER NOT NULL)",
    "INSERT INTO dal_applying (one, is_on) VALUES (1, 0) ON CONFLICT (one) DO NOTHING",
)
_OTHER_MOVE: Final = "INSERT INTO dal_guard (ok) SELECT 0 FROM dal_gate WHERE move <> ?"
_INSERT_GATE: Final = (
    f"INSERT INTO dal_gate ({', '.join(Gate._fields)}) VALUES ({', '.join('?' * len(Gate._fields))}) "
    "ON CONFLICT (unit) DO NOTHING"
)
_INSERT_COUNTER: Final = "INSERT INTO dal_counter (unit, value) VALUES (?, ?) ON CONFLICT (unit) DO NOTHING"
#: Unique columns that the waist does not know of.
_HIDDEN_KEYS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {"messages": (("doc_id",),)}
_CAPTURES: Final = ("insert", "update", "delete", "rename", "replace", "exchange")
_FENCES: Final = ("insert", "update", "delete")


def install(gates: Sequence[Gate]) -> list[Statement]:
    """One batch. A check refuses it where another move's gates are there."""
    statements = [Statement(sql) for sql in _TABLES]
    statements += [Statement(_OTHER_MOVE, (move,)) for move in {gate.move for gate in gates}]
    for gate in gates:
        statements.append(Statement(_INSERT_COUNTER, (gate.unit, gate.epoch * EPOCH)))
        statements.append(Statement(_INSERT_GATE, tuple(gate)))
        for name in UNITS[gate.unit]:
            statements += [Statement(sql) for sql in (*_fence(TABLES[name]), *_capture(TABLES[name]))]
    return statements


def uninstall(*, keep_fence: bool) -> list[Statement]:
    """One batch. keep_fence asks for the gates to be there."""
    statements: list[Statement] = []
    triggers = [f"dal_capture_{name}_{event}" for name in TABLES for event in _CAPTURES]
    tables = list(MOVE_TABLES)
    if keep_fence:
        statements.append(Statement("UPDATE dal_gate SET phase = 'RETIRED', lease_owner = '', lease_until_ms = 0"))
        tables = [name for name in tables if name not in _FENCE_TABLES]
    else:
        triggers += [f"dal_fence_{name}_{event}" for name in TABLES for event in _FENCES]
    statements += [Statement(f"DROP TRIGGER IF EXISTS {name}") for name in triggers]
    return statements + [Statement(f"DROP TABLE IF EXISTS {name}") for name in tables]


# Triggers ------------------------------------------------------------------------------------------------------------


def _capture(table: Table) -> Iterator[str]:
    """Triggers that register what is written where this store is the primary."""
    name, primary = table.name, f"{_role(table)} = 'primary'"

    def made(kind: str, event: str, key: str, *, deleted: int = 0, when: str = "", rows: str = "") -> str:
        condition = f"{primary} AND {when}" if when else primary
        # The condition of rows stands last: ON CONFLICT needs a WHERE before it.
        return (
            f"CREATE TRIGGER IF NOT EXISTS dal_capture_{name}_{kind} {event} ON {name} WHEN {condition} BEGIN "
            f"UPDATE dal_counter SET value = value + 1 WHERE unit = '{UNIT_OF[name]}'; "
            "INSERT INTO dal_sync (entity, pk, ver, deleted, state, hash) "
            f"SELECT '{name}', {key}, dal_counter.value, {deleted}, 2, NULL FROM dal_counter{rows or ' WHERE'} "
            f"dal_counter.unit = '{UNIT_OF[name]}' ON CONFLICT (entity, pk) DO UPDATE "
            f"SET ver = excluded.ver, deleted = {deleted}, state = 2, hash = NULL; END"
        )

    yield made("insert", "AFTER INSERT", "NEW.id")
    yield made("update", "AFTER UPDATE", "NEW.id")
    yield made("delete", "AFTER DELETE", "OLD.id", deleted=1)
    # A changed key is a tombstone of the old one and a row of the new.
    yield made("rename", "AFTER UPDATE OF id", "OLD.id", deleted=1, when="OLD.id <> NEW.id")
    keys = (*table.unique_keys[1:], *_HIDDEN_KEYS.get(name, ()))
    if keys:
        same = " OR ".join(f"({' AND '.join(f't.{c} = NEW.{c}' for c in columns)})" for columns in keys)
        columns = ", ".join(dict.fromkeys(column for key in keys for column in key))
        for kind, event, own in (
            ("replace", "BEFORE INSERT", "NEW.id"),
            ("exchange", f"BEFORE UPDATE OF {columns}", "OLD.id"),
        ):
            others = f"({same}) AND t.id <> {own}"
            holders = f", {name} AS t WHERE {others} AND"
            yield made(kind, event, "t.id", when=f"EXISTS (SELECT 1 FROM {name} AS t WHERE {others})", rows=holders)


def _fence(table: Table) -> Iterator[str]:
    """Triggers that refuse what is written where this store is not the primary."""
    closed = f"{_role(table)} <> 'primary' AND (SELECT is_on FROM dal_applying) = 0"
    refusal = f"{FENCED}: {UNIT_OF[table.name]}: a live move has this unit elsewhere, or is switching it"
    for event in _FENCES:
        cascades = [sql for parent in table.parents if (sql := _cascade(parent, event))]
        condition = " AND ".join([closed, *(f"NOT ({sql})" for sql in cascades)])
        yield (
            f"CREATE TRIGGER IF NOT EXISTS dal_fence_{table.name}_{event} BEFORE {event.upper()} ON {table.name} "
            f"WHEN {condition} BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
        )


def _cascade(parent: Parent, event: str) -> str:
    """Holds for a row that the delete of its parent takes along; empty where this event cannot be that."""
    is_gone = f"NOT EXISTS (SELECT 1 FROM {parent.table} AS p WHERE p.id = OLD.{parent.column})"
    if parent.on_delete == "cascade":
        return is_gone if event == "delete" else ""
    set_null = f"OLD.{parent.column} IS NOT NULL AND NEW.{parent.column} IS NULL"
    return f"{set_null} AND {is_gone}" if event == "update" else ""


def _role(table: Table) -> str:
    return f"(SELECT role FROM dal_gate WHERE unit = '{UNIT_OF[table.name]}')"


# The pieces of a registry's SQL --------------------------------------------------------------------------------------


def _given(columns: Columns) -> str:
    values = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, (name, _) in enumerate(columns))
    return f"(SELECT {values} FROM json_each(?)) AS given"


def _encode_given(rows: Sequence[Sequence[object]]) -> list[object]:
    return [orjson.dumps(rows).decode()]


def _lift(unit: str, version: int, condition: str, params: Sequence[object]) -> list[Statement]:
    there = f"EXISTS (SELECT 1 FROM dal_gate WHERE {condition})"
    sql = f"UPDATE dal_counter SET value = max(value, ?) WHERE unit = ? AND {there}"
    return [Statement(sql, (version, unit, *params))]


def _new_versions(unit: str, count: int) -> tuple[list[Statement], str]:
    taken = Statement("UPDATE dal_counter SET value = value + ? WHERE unit = ?", (count, unit))
    return [taken], f"(SELECT value FROM dal_counter WHERE unit = '{unit}') - given.place"


REGISTRY: Final = RegistrySql(
    given=_given,
    encode_given=_encode_given,
    bucket="substr({}, -3)",
    total="{}",
    installed="SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'dal_gate'",
    mark=(Statement("UPDATE dal_applying SET is_on = 1"),),
    unmark=(Statement("UPDATE dal_applying SET is_on = 0"),),
    lift=_lift,
    new_versions=_new_versions,
)


# Replicas ------------------------------------------------------------------------------------------------------------


class TriggeredReplica(SqlReplica):
    """The moves' side of a store of SQLite's kind."""

    async def install(self, gates: Sequence[Gate]) -> None:
        """Behind whoever writes: a database of SQLite's has one writer at a time."""
        try:
            await self._executor.batch(install(gates))
        except Violation as violation:
            raise ConflictError(
                "another move is installed in this database; end it with `dal move retire` or `dal move abort`",
                operation="install",
                backend=self._backend,
            ) from violation

    async def uninstall(self, *, keep_fence: bool) -> None:
        if not keep_fence or await self._is_installed():
            await self._executor.batch(uninstall(keep_fence=keep_fence))

    async def oldest_writer_s(self) -> float:
        """0: there is one writer at a time, and a fence waits for it by itself."""
        return 0.0

    async def obstacles(self) -> list[str]:
        rows = await self._executor.fetch(Statement(_TRIGGERS, (), returns=True))
        return [
            f"the trigger {name} on {table} would run for copied rows too; drop it for the time of the move"
            for name, table in rows
        ]


_NAMES: Final = ", ".join(f"'{name}'" for name in TABLES)
#: Triggers on the tables that are nobody's of this library.
_TRIGGERS: Final = (
    f"SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ({_NAMES}) "
    "AND substr(name, 1, 4) <> 'dal_' AND name <> 'message_search_delete' ORDER BY name"
)
