"""The reads of PostgreSQL's catalogue that inspection makes: the current schema, without members of extensions.

Every column is text, so that no client's idea of a type matters. No `%` anywhere: to some clients it is a placeholder.
"""

from __future__ import annotations

from typing import Final


def _own(table: str, oid: str, namespace: str) -> str:
    """Condition: in the current schema, and no member of an extension."""
    return f"""{namespace} = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND NOT EXISTS (
        SELECT FROM pg_depend e WHERE e.classid = '{table}'::regclass AND e.objid = {oid} AND e.deptype = 'e'
    )"""  # noqa: S608  # nothing but constants, here and below


_OWN_RELATION: Final = _own("pg_class", "c.oid", "c.relnamespace")
_OWN_TYPE: Final = _own("pg_type", "t.oid", "t.typnamespace")
_OWN_FUNCTION: Final = _own("pg_proc", "p.oid", "p.pronamespace")

#: Tables and views: name, kind, options of a view, options of a table as a JSON list, query of a view.
RELATIONS: Final = f"""
SELECT c.relname::text, c.relkind::text,
    coalesce(array_to_string(c.reloptions, ', '), ''),
    to_json(array_remove(ARRAY[
        CASE WHEN c.relpersistence = 'u' THEN 'UNLOGGED' END,
        CASE WHEN c.relkind = 'f' THEN 'FOREIGN' END,
        'PARTITION BY ' || pg_get_partkeydef(c.oid),
        'PARTITION OF ' || h.parents || ' ' || pg_get_expr(c.relpartbound, c.oid),
        CASE WHEN NOT c.relispartition THEN 'INHERITS ' || h.parents END,
        CASE WHEN c.relrowsecurity THEN 'ROW LEVEL SECURITY' END,
        CASE WHEN c.relforcerowsecurity THEN 'FORCE ROW LEVEL SECURITY' END,
        'WITH (' || array_to_string(c.reloptions, ', ') || ')'
    ], NULL))::text,
    CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid, true) ELSE '' END
FROM pg_class c
LEFT JOIN LATERAL (
    SELECT string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno) AS parents
    FROM pg_inherits i WHERE i.inhrelid = c.oid
) h ON true
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND {_OWN_RELATION}
ORDER BY c.relname
"""  # noqa: S608

#: Columns of tables and of composite types; last the sequence that belongs to the column.
COLUMNS: Final = f"""
SELECT c.relname::text, c.relkind::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
    (NOT a.attnotnull)::text, pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text,
    CASE WHEN a.attcollation <> t.typcollation THEN l.collname::text END,
    (
        SELECT s.objid::regclass::text FROM pg_depend s
        WHERE s.classid = 'pg_class'::regclass AND s.refclassid = 'pg_class'::regclass
            AND s.refobjid = c.oid AND s.refobjsubid = a.attnum AND s.deptype = 'a'
            AND EXISTS (SELECT FROM pg_class q WHERE q.oid = s.objid AND q.relkind = 'S')
        ORDER BY s.objid LIMIT 1
    )
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE c.relkind IN ('r', 'p', 'f', 'c') AND {_OWN_RELATION}
ORDER BY c.relname, a.attnum
"""  # noqa: S608

CONSTRAINTS: Final = f"""
SELECT c.relname::text, k.contype::text, k.conname::text, pg_get_constraintdef(k.oid, true), k.convalidated::text
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
WHERE {_OWN_RELATION}
ORDER BY c.relname, k.conname
"""  # noqa: S608

#: Indexes but for those that a constraint made.
INDEXES: Final = f"""
SELECT c.relname::text, t.relname::text, pg_get_indexdef(i.indexrelid, 0, true), i.indisunique::text,
    (i.indisvalid AND i.indisready)::text
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
WHERE t.relkind IN ('r', 'p', 'm') AND {_OWN_RELATION}
    AND NOT EXISTS (
        SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
    )
ORDER BY c.relname
"""  # noqa: S608

#: Everything else: kind, name, table, definition; and the current schema itself, whose name may be null.
OTHERS: Final = f"""
SELECT 'trigger', t.tgname::text || ' on ' || c.relname::text, c.relname::text,
    pg_get_triggerdef(t.oid, true)
        || CASE t.tgenabled WHEN 'O' THEN '' WHEN 'D' THEN ' (disabled)' WHEN 'R' THEN ' (on replicas)'
            ELSE ' (always)' END
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND {_OWN_RELATION}
UNION ALL
SELECT 'policy', o.polname::text || ' on ' || c.relname::text, c.relname::text,
    concat_ws(' ',
        CASE WHEN o.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
        'FOR ' || CASE o.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
            WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
        'TO ' || (
            SELECT string_agg(coalesce(r.rolname::text, 'public'), ', ' ORDER BY r.rolname)
            FROM unnest(o.polroles) AS u (role) LEFT JOIN pg_roles r ON r.oid = u.role
        ),
        'USING (' || pg_get_expr(o.polqual, o.polrelid) || ')',
        'WITH CHECK (' || pg_get_expr(o.polwithcheck, o.polrelid) || ')')
FROM pg_policy o JOIN pg_class c ON c.oid = o.polrelid
WHERE {_OWN_RELATION}
UNION ALL
SELECT 'policy', w.rulename::text || ' on ' || c.relname::text, c.relname::text, pg_get_ruledef(w.oid, true)
FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class
WHERE w.rulename <> '_RETURN' AND {_OWN_RELATION}
UNION ALL
SELECT 'enum', t.typname::text, '',
    (SELECT json_agg(l.enumlabel::text ORDER BY l.enumsortorder)::text FROM pg_enum l WHERE l.enumtypid = t.oid)
FROM pg_type t
WHERE t.typtype = 'e' AND {_OWN_TYPE}
UNION ALL
SELECT 'type', t.typname::text, '',
    concat_ws(' ',
        'DOMAIN', format_type(t.typbasetype, t.typtypmod),
        CASE WHEN t.typnotnull THEN 'NOT NULL' END,
        'DEFAULT ' || t.typdefault,
        (
            SELECT string_agg(pg_get_constraintdef(k.oid, true), ' ' ORDER BY pg_get_constraintdef(k.oid, true))
            FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'
        ))
FROM pg_type t
WHERE t.typtype = 'd' AND {_OWN_TYPE}
UNION ALL
SELECT 'type', t.typname::text, '', 'RANGE OF ' || format_type(r.rngsubtype, NULL)
FROM pg_type t JOIN pg_range r ON r.rngtypid = t.oid
WHERE {_OWN_TYPE}
UNION ALL
SELECT 'function', p.proname::text || '(' || pg_get_function_identity_arguments(p.oid) || ')', '',
    CASE WHEN p.prokind = 'a' THEN (
        SELECT 'AGGREGATE ' || concat_ws(' ', pg_get_function_result(p.oid), g.aggtransfn::text, g.aggfinalfn::text,
            format_type(g.aggtranstype, NULL), g.agginitval)
        FROM pg_aggregate g WHERE g.aggfnoid = p.oid
    ) ELSE pg_get_functiondef(p.oid) END
FROM pg_proc p
WHERE {_OWN_FUNCTION} AND NOT EXISTS (
    -- What CREATE TYPE … AS RANGE makes by itself.
    SELECT FROM pg_depend i WHERE i.classid = 'pg_proc'::regclass AND i.objid = p.oid AND i.deptype = 'i'
)
UNION ALL
SELECT 'sequence', c.relname::text, '',
    concat_ws(' ', format_type(s.seqtypid, NULL), 'START', s.seqstart, 'INCREMENT', s.seqincrement,
        'MIN', s.seqmin, 'MAX', s.seqmax, 'CACHE', s.seqcache, CASE WHEN s.seqcycle THEN 'CYCLE' END)
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
WHERE {_OWN_RELATION} AND NOT EXISTS (
    SELECT FROM pg_depend o WHERE o.classid = 'pg_class'::regclass AND o.objid = c.oid AND o.deptype IN ('a', 'i')
)
UNION ALL
SELECT 'schema', current_schema()::text, '', ''
ORDER BY 1, 2
"""  # noqa: S608
