"""What a PostgreSQL database and role must allow a live move, and who writes there now. Reads the catalogue only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dal.backends.postgresql import capture
from dal.backends.postgresql.capture import quoted
from dal.backends.postgresql.dialect import encode_array
from dal.backends.sql import Executor, Statement
from dal.replica import UNIT_OF
from dal.urls import SCHEMA_UP

#: Speak PostgreSQL's protocol, and do not hold writers back by triggers and table locks as it does.
_OTHERS: Final = {"CockroachDB": "CockroachDB", "-YB-": "YugabyteDB", "Greenplum": "Greenplum", "Redshift": "Redshift"}
_OURS: Final = (capture.CAPTURE, capture.FENCE, capture.ROW_FENCE, capture.NO_TRUNCATE)

_MAY: Final = """
    SELECT c.relname::text, n.nspname::text,
        has_schema_privilege(current_user, n.oid, 'CREATE'), pg_has_role(current_user, c.relowner, 'USAGE'),
        (SELECT bool_and(has_table_privilege(current_user, c.oid, needed))
         FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRIGGER']) AS needed), current_user::text
    FROM unnest(%s::text[]) AS given (name)
    JOIN pg_class AS c ON c.oid = to_regclass(given.name) JOIN pg_namespace AS n ON n.oid = c.relnamespace"""
_TABLES: Final = """
    SELECT c.relname::text, c.relkind = 'r' AND NOT c.relispartition
        AND NOT EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhparent = c.oid), c.relforcerowsecurity,
        EXISTS (SELECT FROM pg_subscription_rel AS s WHERE s.srrelid = c.oid),
        (SELECT string_agg(t.tgname, ', ' ORDER BY t.tgname) FROM pg_trigger AS t WHERE t.tgrelid = c.oid
         AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgname <> ALL (%s::text[]))
    FROM unnest(%s::text[]) AS given (name) JOIN pg_class AS c ON c.oid = to_regclass(given.name)"""
_SHARDED: Final = """
    SELECT string_agg(logicalrelid::text, ', ') FROM pg_dist_partition
    WHERE logicalrelid::oid IN (SELECT to_regclass(name)::oid FROM unnest(%s::text[]) AS given (name))
    HAVING count(*) > 0"""
#: A transaction that has written has an id; one that is about to, or wrote no row, has the lock that a fence waits for.
_OLDEST_WRITER: Final = """
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - since)), 0)::text FROM (
        SELECT a.xact_start AS since FROM pg_stat_activity AS a
        WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type <> 'autovacuum worker'
        AND (a.backend_xid IS NOT NULL OR EXISTS (
            SELECT FROM pg_locks AS l WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.granted
            AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
            AND l.relation IN (SELECT to_regclass(name)::oid FROM unnest(%s::text[]) AS given (name))))
        UNION ALL
        SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()
    ) AS writers"""


async def missing(executor: Executor) -> list[str]:
    """The rights that installing a move takes and this role has not, a sentence each."""
    names = list(UNIT_OF)
    found = await executor.fetch(Statement(_MAY, (encode_array(list(names)),), returns=True))
    if len(found) < len(names):
        return [f"Not all tables are there; {SCHEMA_UP}."]
    sentences = []
    schemas = sorted({str(schema) for _, schema, may_create, *_ in found if not may_create})
    if schemas:
        sentences.append(
            f"The role may not create tables and functions in the schema {', '.join(schemas)}; GRANT CREATE ON SCHEMA."
        )
    closed = sorted(str(table) for table, _, _, owned, may, _ in found if not owned and not may)
    if closed:
        tables, role = ", ".join(closed), quoted(str(found[0][5]))
        sentences.append(
            f"The role does not own {tables}, and may not write them and make triggers on them: ALTER TABLE … OWNER TO "
            f"{role}; or, with a move that costs each write more, GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON "
            f"{tables} TO {role}."
        )
    return sentences


async def foreign(executor: Executor) -> list[str]:
    """What a move costs whose role may make triggers on tables that it does not own, a sentence."""
    found = await executor.fetch(Statement(_MAY, (encode_array(list(UNIT_OF)),), returns=True))
    tables = sorted(str(table) for table, _, _, owned, may, _ in found if not owned and may)
    if not tables:
        return []
    return [
        f"The role does not own {', '.join(tables)}, so it cannot enable and disable triggers there: each write asks "
        "the gate instead, which takes it about a third longer, and session_replication_role passes the fence. "
        f"Better: ALTER TABLE … OWNER TO {quoted(str(found[0][5]))}, or run the move as the owner."
    ]


async def obstacles(executor: Executor) -> list[str]:
    """What else stands in the way, a sentence each."""
    version, standby, citus = (
        await executor.fetch(
            Statement(
                "SELECT version(), pg_is_in_recovery(), to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL",
                returns=True,
            )
        )
    )[0]
    sentences = [
        f"This is {name}, whose triggers and table locks do not hold writers back as PostgreSQL's do."
        for sign, name in _OTHERS.items()
        if sign in str(version)
    ]
    if standby:
        sentences.append("This server is a replica and takes no writes; name the primary.")
    names = encode_array(list(UNIT_OF))
    if citus:
        for (tables,) in await executor.fetch(Statement(_SHARDED, (names,), returns=True)):
            sentences.append(f"Citus spreads {tables} over workers, and has no triggers there.")
    params = (encode_array(list(_OURS)), names)
    for row in await executor.fetch(Statement(_TABLES, params, returns=True)):
        sentences += _of_table(*row)
    return sentences


async def oldest_writer_s(executor: Executor, tables: Sequence[str]) -> float:
    """Where the role may not see other roles' sessions (pg_read_all_stats), their transactions count as just begun."""
    found = await executor.fetch(Statement(_OLDEST_WRITER, (encode_array(list(tables)),), returns=True))
    return float(str(found[0][0]))


def _of_table(table: object, plain: object, hides: object, subscribed: object, triggers: object) -> list[str]:
    sentences = []
    if not plain:
        sentences.append(f"{table} is not a plain table: writes to its parts would pass its triggers.")
    if hides:
        sentences.append(f"{table} hides rows from its owner (FORCE ROW LEVEL SECURITY).")
    if subscribed:
        sentences.append(f"A subscription writes to {table}, past the triggers of statements; end it first.")
    if triggers:
        sentences.append(f"{table} has triggers of its own, which would run for copies too: {triggers}.")
    return sentences
