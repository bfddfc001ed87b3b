-- What the strategy document promises of the pattern dashboard's database. Each statement answers one number.
-- SQLite's, D1's and the migration tools' own tables are not counted.

-- The seven tables, by name
-- expect: 7
SELECT count(*) FROM sqlite_master
WHERE type = 'table'
  AND name IN ('patterns', 'repositories', 'violations', 'approvals', 'audit_log', 'teams', 'users');

-- and no others
-- expect: 7
SELECT count(*) FROM sqlite_master
WHERE type = 'table'
  AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
  AND name NOT LIKE '\_cf\_%' ESCAPE '\'
  AND name <> 'd1_migrations'
  AND name NOT LIKE 'dal\_migration%' ESCAPE '\';

-- Indexes that have a statement of their own
-- expect: 41
SELECT count(*) FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL;

-- expect: 4
SELECT count(*) FROM sqlite_master WHERE type = 'index' AND sql LIKE 'CREATE UNIQUE INDEX%';

-- Composite ones
-- expect: 8
SELECT count(*) FROM sqlite_master AS i
WHERE i.type = 'index' AND i.sql IS NOT NULL AND (SELECT count(*) FROM pragma_index_info(i.name)) > 1;

-- expect: 3
SELECT count(*) FROM sqlite_master
WHERE type = 'view'
  AND name IN ('violations_with_details', 'pending_approvals_queue', 'repository_compliance_metrics');

-- expect: 4
SELECT count(*) FROM sqlite_master
WHERE type = 'trigger'
  AND name IN ('patterns_update_timestamp', 'repositories_update_timestamp', 'violations_update_timestamp',
               'teams_update_timestamp');

-- Seed data: one team, one user, five patterns, three repositories, where the seed has been applied. Each is counted
-- by its key, so that what people add later does not matter.
-- expect: 10
SELECT CASE
    WHEN EXISTS (SELECT 1 FROM d1_migrations WHERE name = '0005_seed_data.sql') THEN
        (SELECT count(*) FROM teams WHERE slug = 'default-team')
        + (SELECT count(*) FROM users WHERE email = 'admin@example.com' AND role = 'admin')
        + (SELECT count(*) FROM patterns
           WHERE name IN ('Hardcoded Secrets Detection', 'Circular Dependencies', 'Trailing Whitespace',
                          'N+1 Query Detection', 'Missing Test Coverage'))
        + (SELECT count(*) FROM repositories
           WHERE name IN ('API Gateway', 'Authentication Service', 'Dashboard UI'))
    ELSE 10
END;

-- No row refers to one that is not there
-- expect: 0
SELECT count(*) FROM pragma_foreign_key_check;
