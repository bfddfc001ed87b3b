"""The SQL of a move's registry and gates, the same for every engine but for a few pieces that it gives.

The tables, which an engine makes for itself and keeps by triggers of its own:
    dal_sync (entity, pk, ver, deleted, state, hash), key (entity, pk): state 2 dirty, 1 copied, 0 checked; deleted 0 or
    1; a partial index on (entity, state, pk) where state > 0. pk is the id in the type that ids have in the tables.
    dal_gate: a row for each unit, with the fields of `dal.replica.Gate` as its columns, key unit.
Names and literals come from declarations, values are parameters.
"""

# ruff: noqa: S608  (names come from dal.tables and dal.replica only)
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, TypeAlias, cast

from dal.backends.sql.binding import EntryDecoder, entry_decoder
from dal.backends.sql.compiler import Compiler
from dal.backends.sql.dialect import Decoder, Statement
from dal.ops import Row, Select, Value
from dal.replica import EPOCH, TABLE_ORDER, UNIT_OF, Entry, Gate, Registered, State, Unregistered
from dal.tables import TABLES, Kind, Table

STATES: Final[tuple[State, ...]] = ("checked", "copied", "dirty")
#: What a list of rows in a parameter holds: the names of its columns, and what they are.
Columns: TypeAlias = tuple[tuple[str, Kind], ...]
#: A table, names of columns, and these columns' values as parameters, to statements that insert the rows.
Load: TypeAlias = Callable[[str, Sequence[str], list[list[object]]], Sequence[Statement]]

_KEYS: Final[Columns] = (("pk", Kind.ID),)
_VERSIONS: Final[Columns] = (("entity", Kind.TEXT), ("pk", Kind.ID), ("ver", Kind.BIGINT))
_HASHES: Final[Columns] = (*_KEYS, ("hash", Kind.BIGINT))
_DELETED: Final = "CASE WHEN given.hash IS NULL THEN 1 ELSE 0 END"
_COPIED: Final[Columns] = (*_VERSIONS, ("hash", Kind.BIGINT))
_REGISTERED: Final[Columns] = (*_VERSIONS, ("deleted", Kind.INT), ("state", Kind.INT), ("hash", Kind.BIGINT))
_FIELDS: Final = "pk, ver, deleted, state, hash"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySql:
    """What of a registry's SQL differs between engines.

    given         a relation named `given` with these columns, over rows as parameters; the first of two is a key.
    encode_given  those rows, at least one, as its parameters.
    bucket        a key's last three characters; `{}` is the key.
    total         a sum of integers, as one; `{}` is the sum.
    installed     SELECT that gives a row where dal_gate is there.
    mark, unmark  what lets the statements between them pass the fences, in this transaction only.
    lift          makes the versions of a unit at least so large: (unit, version, condition, its parameters).
    new_versions  statements that go before, and an expression, that give each row of `given`, whose column `place`
                  counts from 0, a new version: (unit, number of rows).
    bulk          the statements that write a copy's rows, in fewer, where the engine's executor does not see to it.
    load          inserts many rows in the engine's fastest way; None: the planner's way is the only one.
    """

    given: Callable[[Columns], str]
    encode_given: Callable[[Sequence[Sequence[object]]], Sequence[object]]
    bucket: str
    total: str
    installed: str
    mark: Sequence[Statement]
    unmark: Sequence[Statement]
    lift: Callable[[str, int, str, Sequence[object]], Sequence[Statement]]
    new_versions: Callable[[str, int], tuple[Sequence[Statement], str]]
    bulk: Callable[[Sequence[Statement]], Sequence[Statement]] = lambda statements: statements
    load: Load | None = None


class Registry:
    """Statements over the registry and the gates of one database, and what their rows mean."""

    def __init__(self, compiler: Compiler, sql: RegistrySql) -> None:
        self._compiler = compiler
        self._sql = sql
        self._mark = compiler.dialect.placeholder
        self._decoder = cache(self._decoder_of)

    # Gates -----------------------------------------------------------------------------------------------------------

    def gates(self) -> Statement:
        return Statement(f"SELECT {', '.join(Gate._fields)} FROM dal_gate ORDER BY unit", returns=True)

    def change_gate(self, unit: str, expect: Mapping[str, Value], change: Mapping[str, Value]) -> list[Statement]:
        """The last statement changes the gate and gives a row, if it is as expected."""
        condition = " AND ".join(f"{_field(name)} = {self._mark}" for name in ("unit", *expect))
        params = [unit, *expect.values()]
        sets = ", ".join(f"{_field(name)} = {self._mark}" for name in change)
        changed = Statement(
            f"UPDATE dal_gate SET {sets} WHERE {condition} RETURNING 1",
            [*change.values(), *params],
            returns=True,
            counted=True,
        )
        epoch = change.get("epoch")
        if change.get("role") != "primary" or type(epoch) is not int:
            return [changed]
        return [*self._sql.lift(unit, epoch * EPOCH, condition, params), changed]

    # Reading entries -------------------------------------------------------------------------------------------------

    def dirty(self, table: Table, limit: int) -> Statement:
        sql = (
            f"SELECT {self._entry(table, 's.pk')} FROM dal_sync AS s LEFT JOIN {table.name} AS t ON t.id = s.pk "
            f"WHERE s.entity = '{table.name}' AND s.state > 0 AND s.state = 2 LIMIT {self._mark}"
        )
        return Statement(sql, [limit], returns=True)

    def unregistered(self, table: Table, after: str, limit: int) -> Statement:
        """Where the row has an entry, the version is null."""
        behind = f" WHERE t.id > {self._mark}" if after else ""
        lowest = f"(SELECT epoch FROM dal_gate WHERE unit = '{UNIT_OF[table.name]}') * {EPOCH}"
        sql = (
            f"SELECT t.id, CASE WHEN s.pk IS NULL THEN {lowest} END, s.state, s.hash, {self._row(table)} "
            f"FROM {table.name} AS t LEFT JOIN dal_sync AS s ON s.entity = '{table.name}' AND s.pk = t.id{behind} "
            f"ORDER BY t.id LIMIT {self._mark}"
        )
        return Statement(sql, [after, limit] if after else [limit], returns=True)

    def entries(self, table: Table, ids: Sequence[str]) -> Statement:
        sql = (
            f"SELECT {self._entry(table, 'given.pk')} FROM {self._sql.given(_KEYS)} "
            f"LEFT JOIN dal_sync AS s ON s.entity = '{table.name}' AND s.pk = given.pk "
            f"LEFT JOIN {table.name} AS t ON t.id = given.pk"
        )
        return Statement(sql, self._sql.encode_given([(id_,) for id_ in ids]), returns=True)

    def stored(self, table: Table, ids: Sequence[str]) -> Statement:
        return self._there(table, ids, self._row(table))

    def decode_entries(self, table: Table, rows: Sequence[tuple[object, ...]]) -> list[Entry]:
        return self._decoder(table.name)(rows)

    def decode_unregistered(self, table: Table, rows: Sequence[tuple[object, ...]], limit: int) -> Unregistered:
        entries = self._decoder(table.name)([row for row in rows if row[1] is not None])
        return Unregistered(entries, str(rows[-1][0]) if len(rows) == limit else "")

    def decoders(self, table: Table) -> dict[int, Decoder]:
        """What makes values of a row's columns, by their places."""
        return self._compiler.decoders_of(Select(table.name))

    def _decoder_of(self, name: str) -> EntryDecoder:
        table = TABLES[name]
        return entry_decoder(name, len(table.names), self._compiler.decoders(table, table.names), states=STATES)

    def _entry(self, table: Table, key: str) -> str:
        return f"{key}, s.ver, s.state, s.hash, {self._row(table)}"

    def _row(self, table: Table) -> str:
        forms = self._compiler.dialect.selected
        return ", ".join([forms.get(column.kind, "{}").format(f"t.{column.name}") for column in table.columns])

    # Reading the registry alone --------------------------------------------------------------------------------------

    def versions(self, entries: Sequence[Entry]) -> Statement:
        """Table, id and version of those entries that the registry knows."""
        sql = (
            f"SELECT s.entity, s.pk, s.ver FROM {self._sql.given(_VERSIONS)} "
            "JOIN dal_sync AS s ON s.entity = given.entity AND s.pk = given.pk"
        )
        return Statement(sql, self._versions(entries), returns=True)

    def registered(self, table: Table, ids: Sequence[str]) -> Statement:
        # An outer join, for its order: without statistics both engines walk all of the table's entries instead, and
        # look through the keys for each of them.
        sql = (
            f"SELECT given.pk, s.ver, s.deleted, s.state, s.hash FROM {self._sql.given(_KEYS)} "
            f"LEFT JOIN dal_sync AS s ON s.entity = '{table.name}' AND s.pk = given.pk"
        )
        return Statement(sql, self._sql.encode_given([(id_,) for id_ in ids]), returns=True)

    def copied(self, table: Table, after: str, limit: int) -> Statement:
        behind = f" AND pk > {self._mark}" if after else ""
        sql = (
            f"SELECT {_FIELDS} FROM dal_sync WHERE entity = '{table.name}' AND state > 0 AND state = 1{behind} "
            f"ORDER BY pk LIMIT {self._mark}"
        )
        return Statement(sql, [after, limit] if after else [limit], returns=True)

    def bucket(self, table: Table, buckets: Sequence[str]) -> Statement:
        bucket = self._sql.bucket.format("pk")
        contained = self._compiler.dialect.contains(bucket, Kind.TEXT)
        sql = f"SELECT {_FIELDS} FROM dal_sync WHERE entity = '{table.name}' AND {contained}"
        return Statement(sql, [self._compiler.dialect.encode_list(list(buckets))], returns=True)

    def digest(self, table: Table) -> Statement:
        bucket = self._sql.bucket.format("pk")
        sql = f"SELECT {bucket}, {self._sums()} FROM dal_sync WHERE entity = '{table.name}' GROUP BY 1"
        return Statement(sql, returns=True)

    def tables_with(self, state: State) -> Statement:
        """A truth value for each table, in their order."""
        at = f"s.state > 0 AND s.state = {STATES.index(state)}"
        each = [f"EXISTS (SELECT 1 FROM dal_sync AS s WHERE s.entity = '{name}' AND {at})" for name in TABLES]
        return Statement(f"SELECT {', '.join(each)}", returns=True)

    def total(self, table: Table) -> Statement:
        return Statement(f"SELECT '', {self._sums()} FROM dal_sync WHERE entity = '{table.name}'", returns=True)

    def _sums(self) -> str:
        """In whole numbers throughout: how many entries, tombstones among them, and live entries with a hash, are
        counted, which is the cheapest that an engine does."""
        total = self._sql.total.format
        sums = (
            f"count(*) - {total('sum(deleted)')}",
            total("sum(deleted)"),
            total("sum(hash & 4294967295)"),
            total("sum(hash >> 32)"),
            "max(ver)",
            f"count(*) - {total('sum(deleted)')} - count(CASE WHEN deleted = 0 THEN hash END)",
        )
        return ", ".join([f"coalesce({one}, 0)" for one in sums])

    def backlog(self) -> Statement:
        total = self._sql.total.format
        sql = (
            f"SELECT entity, {total('sum(CASE state WHEN 2 THEN 1 ELSE 0 END)')}, "
            f"{total('sum(CASE state WHEN 1 THEN 1 ELSE 0 END)')}, count(*) FROM dal_sync GROUP BY entity"
        )
        return Statement(sql, returns=True)

    def decode_registered(self, table: Table, rows: Sequence[tuple[object, ...]]) -> list[Registered]:
        return [
            Registered(
                table.name,
                str(pk),
                int(ver),
                bool(deleted),
                STATES[int(state)],
                None if hash_ is None else int(hash_),
            )
            for pk, ver, deleted, state, hash_ in cast("Sequence[tuple[Any, ...]]", rows)
            if ver is not None
        ]

    # Writing the registry --------------------------------------------------------------------------------------------

    def seed(self, table: Table, after: str, limit: int) -> list[Statement]:
        """The second statement gives the last id looked at, and how many."""
        behind = f" WHERE id > {self._mark}" if after else ""
        page = f"(SELECT id FROM {table.name}{behind} ORDER BY id LIMIT {self._mark}) AS page"
        params = [after, limit] if after else [limit]
        epoch = f"(SELECT epoch FROM dal_gate WHERE unit = '{UNIT_OF[table.name]}')"
        seeded = (
            f"INSERT INTO dal_sync (entity, {_FIELDS}) "
            f"SELECT '{table.name}', page.id, {epoch} * {EPOCH}, 0, 2, NULL FROM {page} WHERE TRUE "
            "ON CONFLICT (entity, pk) DO NOTHING"
        )
        # PostgreSQL has no greatest uuid.
        seen = f"SELECT id, count(*) OVER () FROM {page} ORDER BY id DESC LIMIT 1"
        look = Statement(seen, params, returns=True)
        return [Statement(seeded, params), look._replace(recall=lambda: look)]

    def acknowledge(self, rows: Sequence[tuple[str, str, int, int | None]]) -> Statement:
        """Table, id, version and hash of each. What was read back is what is there: a tombstone has no hash."""
        sql = (
            f"UPDATE dal_sync SET state = 1, hash = given.hash, deleted = {_DELETED} "
            f"FROM {self._sql.given(_COPIED)} WHERE dal_sync.entity = given.entity AND dal_sync.pk = given.pk "
            "AND dal_sync.ver = given.ver AND dal_sync.state = 2"
        )
        ordered = [(*row,) for row in sorted(rows, key=_place)]
        return Statement(sql, self._sql.encode_given(ordered))

    def register(self, rows: Sequence[tuple[str, str, int, int | None]]) -> list[Statement]:
        """As `acknowledge`; also keys that have no entry. A page is one statement: it has one table and one version."""
        return [
            Statement(
                f"INSERT INTO dal_sync (entity, {_FIELDS}) SELECT '{TABLES[name].name}', given.pk, "
                f"CAST({self._mark} AS bigint), {_DELETED}, 0, given.hash "
                f"FROM {self._sql.given(_HASHES)} WHERE TRUE ON CONFLICT (entity, pk) DO UPDATE "
                "SET state = 0, hash = excluded.hash, deleted = excluded.deleted "
                "WHERE dal_sync.ver = excluded.ver AND dal_sync.state = 2",
                [version, *self._sql.encode_given([(id_, hash_) for _, id_, _, hash_ in group])],
            )
            for (name, version), group in groupby(sorted(rows, key=_place), key=itemgetter(0, 2))
        ]

    def mark_checked(self, table: Table, versions: Mapping[str, int]) -> Statement:
        sql = (
            f"UPDATE dal_sync SET state = 0 FROM {self._sql.given(_VERSIONS)} WHERE dal_sync.entity = given.entity "
            "AND dal_sync.pk = given.pk AND dal_sync.ver = given.ver AND dal_sync.state = 1"
        )
        ordered = [(table.name, id_, version) for id_, version in sorted(versions.items())]
        return Statement(sql, self._sql.encode_given(ordered))

    def raise_versions(self, table: Table, ids: Sequence[str]) -> list[Statement]:
        before, version = self._sql.new_versions(UNIT_OF[table.name], len(ids))
        there = f"EXISTS (SELECT 1 FROM {table.name} AS t WHERE t.id = given.pk)"
        sql = (
            f"INSERT INTO dal_sync (entity, {_FIELDS}) SELECT '{table.name}', given.pk, {version}, "
            f"CASE WHEN {there} THEN 0 ELSE 1 END, 2, NULL "
            f"FROM {self._sql.given((('pk', Kind.ID), ('place', Kind.INT)))} "
            f"WHERE EXISTS (SELECT 1 FROM dal_gate WHERE unit = '{UNIT_OF[table.name]}' AND role = 'primary') "
            "ON CONFLICT (entity, pk) DO UPDATE "
            "SET ver = excluded.ver, deleted = excluded.deleted, state = excluded.state, hash = excluded.hash"
        )
        given = self._sql.encode_given([(id_, place) for place, id_ in enumerate(sorted(ids))])
        return [*before, Statement(sql, given)]

    def applied(self, won: Sequence[Entry]) -> list[Statement]:
        """Takes the winners' versions, and refuses the batch where another applier was faster with a newer one."""
        taken = (
            f"INSERT INTO dal_sync (entity, {_FIELDS}) "
            "SELECT given.entity, given.pk, given.ver, given.deleted, given.state, given.hash "
            f"FROM {self._sql.given(_REGISTERED)} WHERE TRUE ON CONFLICT (entity, pk) DO UPDATE "
            "SET ver = excluded.ver, deleted = excluded.deleted, state = excluded.state, hash = excluded.hash "
            "WHERE dal_sync.ver < excluded.ver"
        )
        rows = [(e.table, e.id, e.version, int(e.row is None), 0, None if e.row is None else e.hash) for e in won]
        guard = (
            f"INSERT INTO dal_guard (ok) SELECT 0 FROM {self._sql.given(_VERSIONS)} JOIN dal_sync AS s "
            "ON s.entity = given.entity AND s.pk = given.pk WHERE s.ver <> given.ver"
        )
        return [Statement(taken, self._sql.encode_given(rows)), Statement(guard, self._versions(won))]

    def loaded(self, won: Sequence[Entry], load: Load) -> Sequence[Statement]:
        """Registers rows of which nothing is known, and inserts them; a violation where that is not so."""
        count = len(won)
        tables, ids, versions, rows, _, hashes = map(list, zip(*won, strict=True))
        statements = [
            *load(
                "dal_sync",
                ("entity", *_FIELDS.split(", ")),
                [tables, ids, versions, [0] * count, [0] * count, hashes],
            )
        ]
        start = 0
        for name, group in groupby(tables):
            stop = start + sum(1 for _ in group)
            table = TABLES[cast(str, name)]
            statements += load(table.name, table.names, self._columns(table, cast("list[Row]", rows[start:stop])))
            start = stop
        return statements

    def _columns(self, table: Table, rows: Sequence[Row]) -> list[list[object]]:
        """The rows' values as parameters, by column."""
        columns: list[list[object]] = []
        for column, values in zip(table.columns, zip(*rows, strict=True), strict=True):
            encode = self._compiler.dialect.encoders.get(column.kind)
            if encode is None:
                columns.append(list(values))
            elif column.nullable and column.kind is not Kind.JSON:
                columns.append([None if value is None else encode(value) for value in values])
            else:
                columns.append(list(map(encode, values)))
        return columns

    def _versions(self, entries: Sequence[Entry]) -> Sequence[object]:
        return self._sql.encode_given([(entry.table, entry.id, entry.version) for entry in entries])

    # What stands in the way of a copy --------------------------------------------------------------------------------

    def holders(self, table: Table, columns: tuple[str, ...], rows: Sequence[Sequence[object]]) -> Statement:
        """The ids of rows that hold one of these values of a unique key; id of the claimant first, then the values."""
        given = self._sql.given((("pk", Kind.ID), *((f"v_{name}", table.by_name[name].kind) for name in columns)))
        same = " AND ".join(f"t.{name} = given.v_{name}" for name in columns)
        sql = f"SELECT t.id FROM {given} JOIN {table.name} AS t ON {same} WHERE t.id <> given.pk"
        return Statement(sql, self._sql.encode_given(rows), returns=True)

    def present(self, table: Table, ids: Sequence[str]) -> Statement:
        """Those of the ids that have a row."""
        return self._there(table, ids, "t.id")

    def _there(self, table: Table, ids: Sequence[str], columns: str) -> Statement:
        sql = f"SELECT {columns} FROM {self._sql.given(_KEYS)} JOIN {table.name} AS t ON t.id = given.pk"
        return Statement(sql, self._sql.encode_given([(id_,) for id_ in ids]), returns=True)


def table_of(name: str) -> Table:
    """The declared table; KeyError for any other."""
    return TABLES[name]


def _field(name: str) -> str:
    if name not in Gate._fields:
        raise ValueError(f"a gate has no {name}")
    return name


def _place(row: tuple[str, str, int, int | None]) -> tuple[int, str]:
    """One order for everybody."""
    return TABLE_ORDER[row[0]], row[1]
