"""Empties a database before a dump is brought back into it, in the transaction that brings it back.

Everything that pg_dump writes and a script cannot make twice goes: schemas, what is in `public`, large objects, what
hangs on no schema (event triggers, publications, foreign servers, casts), default privileges. Extensions of the dump
stay, for making them again takes privileges that many roles lack and may give another version; the schemas they live in
stay with them. Subscriptions, roles, and settings of the database itself are no part of a dump and are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

#: A line of `pg_restore --list` about an extension; 3079 is the number of the catalogue of extensions.
_EXTENSION: Final = re.compile(r"^\d+; 3079 \d+ EXTENSION - (.+?) *$", re.MULTILINE)

#: Installed extensions, and where the schema that they live in is one that pg_dump makes, its name and owner.
_PRESENT: Final = """
    SELECT e.extname::text, CASE WHEN n.oid >= 16384 THEN n.nspname || ' ' || pg_get_userbyid(n.nspowner) END
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname::text = ANY (%s)
"""

# Below 16384 are the objects that initdb makes; a dependency of type "e" is a member of an extension.
_CLEARING: Final = """
DO $dal_clear$
DECLARE
    kept_extensions text[] := {extensions}::text[];
    statements text[];
    statement text;
    number oid;
BEGIN
    FOR statement IN
        SELECT format('DROP EXTENSION %I CASCADE', extname) FROM pg_extension
        WHERE oid >= 16384 AND extname::text <> ALL (kept_extensions)
    LOOP
        EXECUTE replace(statement, 'EXTENSION', 'EXTENSION IF EXISTS');
    END LOOP;

    -- Identities are found before anything is dropped: CASCADE takes away objects that come later in the list.
    SELECT array_agg(format('DROP %s IF EXISTS %s CASCADE', CASE o.type
        WHEN 'statistics object' THEN 'STATISTICS' WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER'
        WHEN 'composite type' THEN 'TYPE' ELSE upper(o.type) END, o.identity) ORDER BY c.turn, c.class, c.number)
    INTO statements
    FROM (
        SELECT 1 AS turn, 'pg_event_trigger'::regclass AS class, oid AS number FROM pg_event_trigger
        UNION ALL SELECT 2, 'pg_publication'::regclass, oid FROM pg_publication
        UNION ALL SELECT 3, 'pg_namespace'::regclass, n.oid FROM pg_namespace n
            WHERE n.nspname !~ '^pg_' AND NOT EXISTS (SELECT FROM pg_extension e WHERE e.extnamespace = n.oid)
        -- What is in the schemas that stay: tables first, for sequences of identity columns go with them only.
        UNION ALL SELECT CASE WHEN r.relkind IN ('r', 'p', 'f') THEN 4 WHEN d.classid = 'pg_class'::regclass THEN 5
                              ELSE 6 END, d.classid, d.objid
            FROM pg_depend d LEFT JOIN pg_class r ON d.classid = 'pg_class'::regclass AND r.oid = d.objid
            WHERE d.refclassid = 'pg_namespace'::regclass AND d.deptype = 'n' AND d.objsubid = 0
              AND d.classid <> 'pg_extension'::regclass
              AND d.refobjid IN (SELECT oid FROM pg_namespace
                                 WHERE nspname = 'public' OR oid IN (SELECT extnamespace FROM pg_extension))
        UNION ALL SELECT 7, 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
        UNION ALL SELECT 8, 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
        UNION ALL SELECT 9, 'pg_cast'::regclass, oid FROM pg_cast
        UNION ALL SELECT 10, 'pg_am'::regclass, oid FROM pg_am
        UNION ALL SELECT 11, 'pg_language'::regclass, oid FROM pg_language
    ) AS c
    CROSS JOIN LATERAL pg_identify_object(c.class, c.number, 0) AS o
    WHERE c.number >= 16384 AND o.identity <> 'public'
      AND NOT EXISTS (SELECT FROM pg_depend e
                      WHERE e.classid = c.class AND e.objid = c.number AND e.objsubid = 0 AND e.deptype = 'e');
    FOREACH statement IN ARRAY coalesce(statements, '{{}}') LOOP
        EXECUTE statement;
    END LOOP;

    FOR number IN SELECT oid FROM pg_largeobject_metadata LOOP
        PERFORM lo_unlink(number);
    END LOOP;

    -- Rows that a user added to an extension's own tables are in the dump.
    FOR statement IN
        SELECT format('DELETE FROM %s %s', t.config::regclass, t.condition)
        FROM pg_extension e CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) AS t (config, condition)
        JOIN pg_class r ON r.oid = t.config AND r.relkind IN ('r', 'p')
    LOOP
        EXECUTE statement;
    END LOOP;

    -- Privileges in a dump are what differs from those of a new database. `ours`: roles that we may act for.
    FOR statement IN
        WITH ours AS (SELECT oid, rolname FROM pg_roles WHERE pg_has_role(oid, 'USAGE')),
        defaults AS (
            SELECT d.defaclrole, d.defaclnamespace, d.defaclacl, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s ',
                ours.rolname, ' IN SCHEMA ' || quote_ident(n.nspname)) AS clause,
                CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
                    WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END AS kind,
                CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END AS code
            FROM pg_default_acl d JOIN ours ON ours.oid = d.defaclrole
            LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
        ),
        changes AS (
            SELECT DISTINCT 1 AS turn, format('%s REVOKE ALL ON %s FROM %s', clause, kind,
                CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END) AS change
            FROM defaults CROSS JOIN LATERAL aclexplode(defaclacl) AS a
            UNION ALL
            SELECT 2, format('%s GRANT %s ON %s TO %s', clause, a.privilege_type, kind,
                CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
            FROM defaults CROSS JOIN LATERAL aclexplode(acldefault(code, defaclrole)) AS a WHERE defaclnamespace = 0
            UNION ALL
            SELECT DISTINCT 3, format('REVOKE ALL ON SCHEMA %I FROM %s CASCADE', n.nspname,
                CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
            FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) AS a WHERE n.oid = ANY (ARRAY(
                SELECT s.oid FROM pg_namespace s JOIN ours ON ours.oid = s.nspowner
                WHERE s.nspname = 'public' OR (s.oid >= 16384 AND s.nspname !~ '^pg_')))
            UNION ALL
            -- What the first owner gave to itself is the present owner's.
            SELECT 4, format('GRANT %s ON SCHEMA %I TO %s%s', a.privilege_type, n.nspname,
                CASE a.grantee WHEN 0 THEN 'PUBLIC' WHEN a.grantor THEN n.nspowner::regrole::text
                    ELSE a.grantee::regrole::text END,
                CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
            FROM pg_namespace n JOIN ours ON ours.oid = n.nspowner
            LEFT JOIN pg_init_privs i ON i.classoid = 'pg_namespace'::regclass AND i.objoid = n.oid AND i.objsubid = 0
            CROSS JOIN LATERAL aclexplode(coalesce(i.initprivs, acldefault('n', n.nspowner))) AS a
            WHERE n.nspacl IS NOT NULL AND (n.nspname = 'public' OR (n.oid >= 16384 AND n.nspname !~ '^pg_'))
            UNION ALL
            SELECT 5, 'COMMENT ON SCHEMA public IS ''standard public schema''' FROM pg_namespace n
            JOIN ours ON ours.oid = n.nspowner WHERE n.nspname = 'public'
        )
        SELECT change FROM changes ORDER BY turn, change
    LOOP
        EXECUTE statement;
    END LOOP;
END
$dal_clear$;
"""


def extensions_of(listing: str) -> list[str]:
    """The extensions of a dump, out of what `pg_restore --list` says."""
    return _EXTENSION.findall(listing)


async def without_present(connection: psycopg.AsyncConnection[Any], listing: str, extensions: Sequence[str]) -> str:
    """The list for `pg_restore --use-list` that does not make these extensions where they are there, nor the schemas
    that they live in (`public` apart: pg_dump does not make it). Their comments need their owner, too."""
    there = await (await connection.execute(_PRESENT, (list(extensions),))).fetchall()
    made = {f" EXTENSION - {name} " for name, _ in there}
    made |= {f" COMMENT - EXTENSION {name} " for name, _ in there}
    made |= {f" SCHEMA - {schema}" for _, schema in there if schema is not None}
    return "".join(line for line in listing.splitlines(True) if not line.rstrip("\n").endswith(tuple(made)))


def clearing(connection: psycopg.AsyncConnection[Any], extensions: Sequence[str]) -> str:
    """The statement that empties the database, all but these extensions."""
    return sql.SQL(_CLEARING).format(extensions=sql.Literal(list(extensions))).as_string(connection)
