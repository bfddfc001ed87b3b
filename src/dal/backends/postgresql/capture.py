"""What a live move makes in a PostgreSQL database: the registry, the gates, and the triggers on the users' tables.

Which triggers are enabled says whether this store is a unit's primary: `dal_capture` where it is, `dal_fence` and
`dal_fence_rows` where not. So no write has to read a gate, which a snapshot from before a switch would show as it was;
and a switch, which takes the tables' locks, waits for every writer under way. What a parent's delete takes along is
told from other writes by the parent: it is gone. All triggers are ENABLE ALWAYS, so that `session_replication_role`
does not switch them off. For a role that does not own the tables the same functions ask for their unit's role first
(unowned.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dal.backends.postgresql.errors import FENCED
from dal.replica import TABLE_ORDER, UNIT_OF, UNITS
from dal.tables import TABLES

CAPTURE: Final = "dal_capture"
FENCE: Final = "dal_fence"
#: The fence of single rows, for writes that come out of other tables' triggers.
ROW_FENCE: Final = "dal_fence_rows"
NO_TRUNCATE: Final = "dal_truncate"

_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS {schema}.dal_sync (
        entity TEXT COLLATE "C" NOT NULL,
        pk UUID NOT NULL,
        ver BIGINT NOT NULL,
        deleted SMALLINT NOT NULL,
        state SMALLINT NOT NULL,
        hash BIGINT,
        PRIMARY KEY (entity, pk)
    )""",
    "CREATE INDEX IF NOT EXISTS dal_sync_state ON {schema}.dal_sync (entity, state, pk) WHERE state > 0",
    """CREATE TABLE IF NOT EXISTS {schema}.dal_gate (
        unit TEXT PRIMARY KEY,
        move TEXT NOT NULL,
        side TEXT NOT NULL,
        role TEXT NOT NULL,
        epoch BIGINT NOT NULL,
        next_epoch BIGINT NOT NULL,
        phase TEXT NOT NULL,
        cursor TEXT NOT NULL,
        turn BIGINT NOT NULL,
        lease_owner TEXT NOT NULL,
        lease_until_ms BIGINT NOT NULL,
        shadow_percent INTEGER NOT NULL,
        notes TEXT NOT NULL
    )""",
)

#: A changed key is a tombstone and a new row. The version is taken again where the key has an entry: whoever waited
#: for that entry then has the later one. Whoever may write a table may be somebody without rights on the registry.
_CAPTURE: Final = """CREATE OR REPLACE FUNCTION {schema}.dal_capture_{table}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN{asks}
    IF NEW.id IS NOT NULL THEN
        INSERT INTO {schema}.dal_sync (entity, pk, ver, deleted, state)
        VALUES ('{table}', NEW.id, nextval({counter}), 0, 2)
        ON CONFLICT (entity, pk) DO UPDATE
        SET ver = nextval({counter}), deleted = 0, state = 2, hash = NULL;
    END IF;
    IF OLD.id IS NOT NULL AND OLD.id IS DISTINCT FROM NEW.id THEN
        INSERT INTO {schema}.dal_sync (entity, pk, ver, deleted, state)
        VALUES ('{table}', OLD.id, nextval({counter}), 1, 2)
        ON CONFLICT (entity, pk) DO UPDATE
        SET ver = nextval({counter}), deleted = 1, state = 2, hash = NULL;
    END IF;
    RETURN NULL;
END
$body$"""

#: A statement from inside another trigger is left to the fence of single rows, where the table has parents at all.
_FENCE: Final = """CREATE OR REPLACE FUNCTION {schema}.dal_fence_statement() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF pg_trigger_depth() > 1 AND TG_OP <> 'INSERT' AND TG_ARGV[1] = 'child' THEN
        RETURN NULL;
    END IF;{asks}
    IF current_setting('dal.applying', TRUE) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'a live move is on: this database takes no writes of % now', TG_ARGV[0] USING ERRCODE = '{state}';
END
$body$"""

#: What a parent's delete takes along is let through in a replica, and marked: the delete may be late, and the child
#: live on at the primary, whose state the mover then sends again. Behind a fence it is refused. Only here a gate is
#: read, and locked, for a role must not be taken from an old snapshot.
_ROW_FENCE: Final = """CREATE OR REPLACE FUNCTION {schema}.dal_fence_{table}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    applying CONSTANT BOOLEAN NOT NULL := coalesce(current_setting('dal.applying', TRUE), '') = 'on';
    passes BOOLEAN := {orphaned};
BEGIN{asks}
    IF passes AND NOT applying THEN
        SELECT role = 'replica' INTO passes FROM {schema}.dal_gate WHERE unit = TG_ARGV[0] FOR SHARE;
    END IF;
    IF NOT applying AND passes IS NOT TRUE THEN
        RAISE EXCEPTION 'a live move is on: this database takes no writes of % now', TG_ARGV[0]
        USING ERRCODE = '{state}';
    END IF;
    IF passes AND to_regclass({registry}) IS NOT NULL THEN
        UPDATE {schema}.dal_sync SET state = 2, hash = NULL WHERE entity = '{table}' AND pk = OLD.id;
    END IF;
    RETURN NULL;
END
$body$"""

_NO_TRUNCATE: Final = """CREATE OR REPLACE FUNCTION {schema}.dal_no_truncate() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RAISE EXCEPTION 'TRUNCATE is refused while a live move is on: it names no row' USING
        ERRCODE = 'feature_not_supported', HINT = 'Use DELETE, or end the move first.';
END
$body$"""

_TRIGGERS: Final[dict[str, str]] = {
    CAPTURE: "AFTER INSERT OR UPDATE OR DELETE ON {place} FOR EACH ROW EXECUTE FUNCTION {schema}.dal_capture_{table}()",
    FENCE: "BEFORE INSERT OR UPDATE OR DELETE ON {place} FOR EACH STATEMENT "
    "EXECUTE FUNCTION {schema}.dal_fence_statement('{unit}', '{kin}')",
    # Copies and direct writes, which the fence of statements has judged, do not even call the function.
    ROW_FENCE: "AFTER UPDATE OR DELETE ON {place} FOR EACH ROW WHEN (pg_trigger_depth() > 0) "
    "EXECUTE FUNCTION {schema}.dal_fence_{table}('{unit}')",
    NO_TRUNCATE: "BEFORE TRUNCATE ON {place} FOR EACH STATEMENT EXECUTE FUNCTION {schema}.dal_no_truncate()",
}


def sequence_of(unit: str) -> str:
    """The counter of a unit's versions."""
    return f"dal_version_{unit}"


def in_order(tables: Iterable[str]) -> list[str]:
    """The order in which tables are locked, by everybody: as an append and a cascade lock them, parents first."""
    return sorted(tables, key=TABLE_ORDER.__getitem__)


def is_child(table: str) -> bool:
    return bool(TABLES[table].parents)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


#: Where triggers cannot be switched: is this the primary? Rows that a cascade takes along come past the fence of
#: statements, and their triggers run when that statement has ended, so that they cannot be told from others.
_ASKS: Final = """
    IF {schema}.dal_role(TG_ARGV[0]) = 'primary' THEN
        RETURN NULL;
    END IF;"""
_ASKS_TO_CAPTURE: Final = """
    IF {schema}.dal_role('{unit}') IS DISTINCT FROM 'primary' THEN
        RETURN NULL;
    END IF;"""


def objects(schema: str, *, asking: bool = False) -> list[str]:
    """Statements that make everything that touches no table of the users', where it is not there yet.

    asking  the functions ask for their unit's role, with the function of unowned.py, which has to be there.
    """
    place = quoted(schema)
    asks = _ASKS.format(schema=place) if asking else ""
    found = [text.format(schema=place) for text in _TABLES]
    found += [f"CREATE SEQUENCE IF NOT EXISTS {place}.{sequence_of(unit)} AS BIGINT" for unit in UNITS]
    found += [
        _CAPTURE.format(
            schema=place,
            table=table,
            counter=counter(schema, unit),
            asks=_ASKS_TO_CAPTURE.format(schema=place, unit=unit) if asking else "",
        )
        for table, unit in UNIT_OF.items()
    ]
    found.append(_FENCE.format(schema=place, state=FENCED, asks=asks))
    found += [
        _ROW_FENCE.format(
            schema=place,
            table=table,
            orphaned=_orphaned(place, table),
            registry=_text(f"{place}.dal_sync"),
            state=FENCED,
            asks=asks,
        )
        for table in UNIT_OF
        if is_child(table)
    ]
    found.append(_NO_TRUNCATE.format(schema=place))
    return found


#: Who holds any right on a table may read the gates. Who holds all of them on all tables is an application: it copies
#: what it changed and reports: the registry tells ids of every table, and whoever may write it can leave rows behind.
_GRANTS: Final = """DO $do$ DECLARE one RECORD; BEGIN
    FOR one IN
        SELECT coalesce(quote_ident(r.rolname), 'PUBLIC') AS who,
            count(DISTINCT (c.oid, a.privilege_type)) = 4 * {count} AS is_application
        FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a LEFT JOIN pg_roles AS r ON r.oid = a.grantee
        WHERE c.oid IN ({tables}) AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
        AND a.grantee <> c.relowner GROUP BY 1
    LOOP
        EXECUTE 'GRANT SELECT ON {schema}.dal_gate TO ' || one.who;
        IF one.is_application THEN
            EXECUTE 'GRANT UPDATE ON {schema}.dal_gate TO ' || one.who;
            EXECUTE 'GRANT SELECT, INSERT, UPDATE ON {schema}.dal_sync TO ' || one.who;
            EXECUTE 'GRANT USAGE, UPDATE ON SEQUENCE {counters} TO ' || one.who;
        END IF;
    END LOOP;
END $do$"""


def grants(schema: str) -> str:
    """Gives roles that hold rights on the users' tables those on the move's that taking part in it asks for."""
    place = quoted(schema)
    return _GRANTS.format(
        count=len(UNIT_OF),
        schema=place.replace("'", "''"),
        tables=", ".join(f"{_text(f'{place}.{table}')}::regclass" for table in UNIT_OF),
        counters=", ".join(f"{place}.{sequence_of(unit)}" for unit in UNITS).replace("'", "''"),
    )


def triggers(table: str) -> tuple[str, ...]:
    """The names of the triggers that a table carries while a move is on."""
    return tuple(name for name in _TRIGGERS if name != ROW_FENCE or is_child(table))


def enabled(table: str, *, primary: bool) -> tuple[str, ...]:
    """The triggers that are enabled in this role."""
    off = (FENCE, ROW_FENCE) if primary else (CAPTURE,)
    return tuple(name for name in triggers(table) if name not in off)


def counter(schema: str, unit: str) -> str:
    """The unit's sequence, as nextval() takes it."""
    return _text(f"{quoted(schema)}.{sequence_of(unit)}")


def create_trigger(schema: str, table: str, name: str) -> str:
    """Makes the trigger where it is not there yet."""
    place = quoted(schema)
    action = _TRIGGERS[name].format(
        place=f"{place}.{table}",
        schema=place,
        table=table,
        unit=UNIT_OF[table],
        kin="child" if is_child(table) else "alone",
    )
    there = f"SELECT FROM pg_trigger WHERE tgrelid = {_text(f'{place}.{table}')}::regclass AND tgname = '{name}'"
    return f"DO $do$ BEGIN IF NOT EXISTS ({there}) THEN CREATE TRIGGER {name} {action}; END IF; END $do$"


def lock(schema: str, tables: Iterable[str], mode: str) -> str:
    """Takes the tables' locks, in everybody's order."""
    return f"LOCK TABLE {', '.join(f'{quoted(schema)}.{table}' for table in in_order(tables))} IN {mode} MODE"


def enforce(schema: str, table: str, *, primary: bool) -> str:
    """Makes the table's triggers be those of the role. Takes SHARE ROW EXCLUSIVE: no writer is under way then."""
    on = enabled(table, primary=primary)
    actions = [f"{'ENABLE ALWAYS' if name in on else 'DISABLE'} TRIGGER {name}" for name in triggers(table)]
    return f"ALTER TABLE {quoted(schema)}.{table} {', '.join(actions)}"


def drop_triggers(schema: str, table: str, *, keep_fence: bool) -> list[str]:
    """Takes ACCESS EXCLUSIVE on the table."""
    gone = (CAPTURE,) if keep_fence else triggers(table)
    return [f"DROP TRIGGER IF EXISTS {name} ON {quoted(schema)}.{table}" for name in gone]


def drop_objects(schema: str, fenced: Iterable[str], *, keep_gates: bool) -> list[str]:
    """Statements that drop everything else; what the fences of the tables in `fenced` need is kept."""
    place, kept = quoted(schema), set(fenced)
    found = [f"DROP TABLE IF EXISTS {place}.dal_sync"]
    found += [f"DROP SEQUENCE IF EXISTS {place}.{sequence_of(unit)}" for unit in UNITS]
    found += [f"DROP FUNCTION IF EXISTS {place}.dal_capture_{table}()" for table in UNIT_OF]
    found += [
        f"DROP FUNCTION IF EXISTS {place}.dal_fence_{table}()"
        for table in UNIT_OF
        if is_child(table) and table not in kept
    ]
    if not kept:
        found += [
            f"DROP FUNCTION IF EXISTS {place}.dal_fence_statement()",
            f"DROP FUNCTION IF EXISTS {place}.dal_no_truncate()",
        ]
    if not keep_gates:
        found.append(f"DROP TABLE IF EXISTS {place}.dal_gate")
    return found


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _orphaned(schema: str, table: str) -> str:
    """Holds for a row whose parent is gone: then it is the parent's own delete that took it away, or set it free."""
    conditions = " OR ".join(
        f"OLD.{parent.column} IS NOT NULL AND (NEW.id IS NULL OR NEW.{parent.column} IS NULL) "
        f"AND NOT EXISTS (SELECT FROM {schema}.{parent.table} WHERE id = OLD.{parent.column})"
        for parent in TABLES[table].parents
    )
    return f"({conditions})"
