"""What a live move makes in a database of SQLite or D1: registry, gates, and triggers that see every writer there is.

Triggers register what changed where this store is the unit's primary. Where it is not, they refuse what is not an
applier's, but for what the delete of a parent takes along: the primary's own cascade will be copied.
Nothing is taken for granted of other writers' connections: without recursive triggers a row that REPLACE removes has
no DELETE of its own, so whichever row holds a unique key of a new one is marked before; one too many is harmless.
Every statement is one line, as D1 wants triggers to be.

What any trigger at all adds to an insert is 4 µs, so there are few: one that refuses and registers where that can wait
until the row is written, and one before it where a unique key would have spoken first.
"""

# ruff: noqa: S608  (names come from dal.tables only)
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, cast

import orjson

from dal.backends.sql.dialect import Statement, Violation
from dal.backends.sql.registry import Columns, RegistrySql
from dal.backends.sql.replica import SqlReplica
from dal.errors import ConflictError
from dal.replica import EPOCH, UNIT_OF, UNITS, Gate
from dal.tables import TABLES, Table

#: By this text D1's answers are told; SQLite has a code for what a trigger refuses.
FENCED: Final = "dal: fenced"
#: The move's own tables: no schema of anybody's, and not there without a move.
MOVE_TABLES: Final = ("dal_sync", "dal_applying", "dal_unit", "dal_gate")
_FENCE_TABLES: Final = ("dal_unit", "dal_gate")
_NUMBERS: Final = {unit: number for number, unit in enumerate(UNITS, start=1)}

_MADE: Final = (
    "CREATE TABLE IF NOT EXISTS dal_sync (entity TEXT NOT NULL, pk TEXT NOT NULL, ver INTEGER NOT NULL, "
    "deleted INTEGER NOT NULL, state INTEGER NOT NULL, hash INTEGER, PRIMARY KEY (entity, pk)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS dal_sync_pending ON dal_sync (entity, state, pk) WHERE state > 0",
    "CREATE TABLE IF NOT EXISTS dal_gate (unit TEXT PRIMARY KEY NOT NULL, move TEXT NOT NULL, side TEXT NOT NULL, "
    "role TEXT NOT NULL, epoch INTEGER NOT NULL, next_epoch INTEGER NOT NULL, phase TEXT NOT NULL, "
    "cursor TEXT NOT NULL, turn INTEGER NOT NULL, lease_owner TEXT NOT NULL, lease_until_ms INTEGER NOT NULL, "
    "shadow_percent INTEGER NOT NULL, notes TEXT NOT NULL) WITHOUT ROWID",
    # What triggers ask of a gate, and the last version of the unit: found by its number, in one small page.
    "CREATE TABLE IF NOT EXISTS dal_unit (number INTEGER PRIMARY KEY, unit TEXT NOT NULL, is_primary INTEGER NOT NULL, "
    "is_fenced INTEGER NOT NULL, version INTEGER NOT NULL)",
    "CREATE TRIGGER IF NOT EXISTS dal_gate_role AFTER UPDATE OF role ON dal_gate BEGIN "
    "UPDATE dal_unit SET is_primary = (NEW.role = 'primary'), is_fenced = (NEW.role = 'fenced') "
    "WHERE unit = NEW.unit; END",
    "CREATE TABLE IF NOT EXISTS dal_applying (one INTEGER PRIMARY KEY CHECK (one = 1), is_on INTEGER NOT NULL)",
    "INSERT INTO dal_applying (one, is_on) VALUES (1, 0) ON CONFLICT (one) DO NOTHING",
)
_OTHER_MOVE: Final = "INSERT INTO dal_guard (ok) SELECT 0 FROM dal_gate WHERE move <> ?"
_INSERT_GATE: Final = (
    f"INSERT INTO dal_gate ({', '.join(Gate._fields)}) VALUES ({', '.join('?' * len(Gate._fields))}) "
    "ON CONFLICT (unit) DO NOTHING"
)
_INSERT_UNIT: Final = (
    "INSERT INTO dal_unit (number, unit, is_primary, is_fenced, version) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (number) DO NOTHING"
)
_RETIRE: Final = "UPDATE dal_gate SET phase = 'RETIRED', lease_owner = '', lease_until_ms = 0"
#: Unique columns that the waist does not know of.
_HIDDEN_KEYS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {"messages": (("doc_id",),)}
_CAPTURES: Final = ("before_insert", "insert", "before_update", "update", "rename", "delete", "cascade")
_FENCES: Final = ("insert", "update", "delete")


def install(gates: Sequence[Gate]) -> list[Statement]:
    """One batch. A check refuses it where another move's gates are there."""
    statements = [Statement(sql) for sql in _MADE]
    statements += [Statement(_OTHER_MOVE, (move,)) for move in {gate.move for gate in gates}]
    for gate in gates:
        roles = int(gate.role == "primary"), int(gate.role == "fenced")
        unit = (_NUMBERS[gate.unit], gate.unit, *roles, gate.epoch * EPOCH)
        statements += [Statement(_INSERT_UNIT, unit), Statement(_INSERT_GATE, tuple(gate))]
        statements += [Statement(sql) for name in UNITS[gate.unit] for sql in _captures(TABLES[name])]
    return statements


def uninstall(gates: Sequence[Gate], *, keep_fence: bool) -> list[Statement]:
    """One batch."""
    kept = _FENCE_TABLES if keep_fence else ()
    names = [f"dal_fence_{name}_{event}" for name in TABLES for event in _FENCES if not kept]
    names += [f"dal_capture_{name}_{event}" for name in TABLES for event in _CAPTURES]
    statements = [Statement(_RETIRE)] if kept else []
    statements += [
        Statement(sql) for gate in gates if kept for name in UNITS[gate.unit] for sql in _fences(TABLES[name])
    ]
    statements += [Statement(f"DROP TRIGGER IF EXISTS {name}") for name in names]
    return statements + [Statement(f"DROP TABLE IF EXISTS {name}") for name in MOVE_TABLES if name not in kept]


# Triggers ------------------------------------------------------------------------------------------------------------


def _captures(table: Table) -> Iterator[str]:
    """Triggers that register or refuse, as this store's role is; the applier's mark lets it pass unregistered."""
    primary, others = _is_primary(table), "(SELECT is_on FROM dal_applying) = 0"
    refuse = f"SELECT RAISE(ABORT, '{_refusal(table)}') WHERE NOT {primary};"

    def trigger(name: str, event: str, when: str, *body: str) -> str:
        return (
            f"CREATE TRIGGER IF NOT EXISTS dal_capture_{table.name}_{name} {event} ON {table.name} "
            f"WHEN {when} BEGIN {' '.join(body)} END"
        )

    new, old = _register(table, "NEW.id"), _register(table, "OLD.id", deleted=1)
    yield trigger("insert", "AFTER INSERT", primary, *new)
    for event, registered in (("update", new), ("delete", old)):
        refused = f"{others} AND {_is_refused(table, event)}"
        yield trigger(event, f"AFTER {event.upper()}", f"{primary} OR ({refused})", refuse, *registered)
        if cascades := _cascades(table, event):
            # Also what an applier's delete takes along, behind a fence too: its child may be newer than the delete, and
            # copied before it.
            let_through = f"NOT {primary} AND ({' OR '.join(cascades)})"
            yield trigger("cascade", f"AFTER {event.upper()}", let_through, _mark(table))
    # A changed key is a tombstone of the old one and a row of the new.
    yield trigger("rename", "AFTER UPDATE OF id", f"{primary} AND OLD.id <> NEW.id", *old)
    keys = (*table.unique_keys[1:], *_HIDDEN_KEYS.get(table.name, ()))
    columns = ", ".join(dict.fromkeys(column for key in keys for column in key))
    same = [" AND ".join(f"t.{column} = NEW.{column}" for column in key) for key in keys]
    for name, event, own in (
        ("before_insert", "BEFORE INSERT", "NEW.id"),
        ("before_update", f"BEFORE UPDATE OF {columns}", "OLD.id"),
    ):
        held = [f"SELECT t.id FROM {table.name} AS t WHERE {one} AND t.id <> {own}" for one in same]
        is_held = " OR ".join(f"EXISTS ({one})" for one in held)
        if held:
            victims = _register(table, "t.id", f"{table.name} AS t WHERE t.id IN ({' UNION ALL '.join(held)})")
            yield trigger(name, event, f"CASE WHEN {primary} THEN {is_held} ELSE {others} END", refuse, *victims)
        elif name == "before_insert":
            yield trigger(name, event, f"NOT {primary} AND {others}", refuse)


def _register(table: Table, key: str, rows: str = "", *, deleted: int = 0) -> tuple[str, str]:
    """Statements that give the row of this key, or each of these rows, a new version."""
    unit = f"number = {_NUMBERS[UNIT_OF[table.name]]}"
    values = f"'{table.name}', {key}, (SELECT version FROM dal_unit WHERE {unit}), {deleted}, 2, NULL"
    return (
        f"UPDATE dal_unit SET version = version + 1 WHERE {unit};",
        "INSERT INTO dal_sync (entity, pk, ver, deleted, state, hash) "
        f"{f'SELECT {values} FROM {rows}' if rows else f'VALUES ({values})'} ON CONFLICT (entity, pk) DO UPDATE "
        f"SET ver = excluded.ver, deleted = {deleted}, state = 2, hash = NULL;",
    )


def _mark(table: Table) -> str:
    """A statement that makes the row's entry dirty as it is: the primary is to send the row once more."""
    return f"UPDATE dal_sync SET state = 2, hash = NULL WHERE entity = '{table.name}' AND pk = OLD.id;"


def _fences(table: Table) -> Iterator[str]:
    """Triggers that only refuse."""
    for event in _FENCES:
        yield (
            f"CREATE TRIGGER IF NOT EXISTS dal_fence_{table.name}_{event} BEFORE {event.upper()} ON {table.name} "
            f"WHEN NOT {_is_primary(table)} AND {_is_refused(table, event)} "
            f"BEGIN SELECT RAISE(ABORT, '{_refusal(table)}'); END"
        )


def _is_refused(table: Table, event: str) -> str:
    """Holds for a row that this store, which is not the primary, must not write.

    What the delete of a parent takes along is let through in a replica. Behind a fence it is not: were that taken back,
    nobody would have registered it.
    """
    cascades = _cascades(table, event)
    return f"({_is_fenced(table)} OR NOT ({' OR '.join(cascades)}))" if cascades else "TRUE"


def _cascades(table: Table, event: str) -> list[str]:
    """Conditions that hold for a row written because its parent was deleted, one for each parent."""
    conditions = []
    for parent in table.parents:
        is_gone = f"NOT EXISTS (SELECT 1 FROM {parent.table} AS p WHERE p.id = OLD.{parent.column})"
        if parent.on_delete == "cascade" and event == "delete":
            conditions.append(f"({is_gone})")
        elif parent.on_delete == "set null" and event == "update":
            set_null = f"OLD.{parent.column} IS NOT NULL AND NEW.{parent.column} IS NULL"
            conditions.append(f"({set_null} AND {is_gone})")
    return conditions


def _is_primary(table: Table) -> str:
    return f"(SELECT is_primary FROM dal_unit WHERE number = {_NUMBERS[UNIT_OF[table.name]]})"


def _is_fenced(table: Table) -> str:
    return f"(SELECT is_fenced FROM dal_unit WHERE number = {_NUMBERS[UNIT_OF[table.name]]})"


def _refusal(table: Table) -> str:
    return f"{FENCED}: {UNIT_OF[table.name]}: a live move has this unit elsewhere, or is switching it"


# The pieces of a registry's SQL --------------------------------------------------------------------------------------


#: What `json_each` calls the columns of rows of one column, or two.
_TAKEN: Final = {1: ("value",), 2: ("key", "value")}


def _given(columns: Columns) -> str:
    """A list of values, an object's names and values, or a list of rows; only those are taken apart one by one, which
    takes longer than all else (measured for keys with their hashes: 0.3 µs a row as an object, 0.7 as rows)."""
    taken = _TAKEN.get(len(columns)) or [f"json_extract(value, '$[{place}]')" for place in range(len(columns))]
    values = ", ".join(f"{one} AS {name}" for one, (name, _) in zip(taken, columns, strict=True))
    return f"(SELECT {values} FROM json_each(?)) AS given"


def _encode_given(rows: Sequence[Sequence[object]]) -> list[object]:
    given: object = rows
    if len(rows[0]) == 1:
        given = [value for (value,) in rows]
    elif len(rows[0]) == 2:
        given = dict(cast("Sequence[tuple[str, object]]", rows))
    return [orjson.dumps(given).decode()]


def _lift(unit: str, version: int, condition: str, params: Sequence[object]) -> list[Statement]:
    there = f"EXISTS (SELECT 1 FROM dal_gate WHERE {condition})"
    sql = f"UPDATE dal_unit SET version = max(version, ?) WHERE number = ? AND {there}"
    return [Statement(sql, (version, _NUMBERS[unit], *params))]


def _new_versions(unit: str, count: int) -> tuple[list[Statement], str]:
    number = _NUMBERS[unit]
    taken = Statement("UPDATE dal_unit SET version = version + ? WHERE number = ?", (count, number))
    return [taken], f"(SELECT version FROM dal_unit WHERE number = {number}) - given.place"


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
        gates = await self.gates() if keep_fence else {}
        if gates or not keep_fence:
            await self._executor.batch(uninstall(list(gates.values()), keep_fence=keep_fence))

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
