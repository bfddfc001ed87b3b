-- dal:env seed
-- Pattern Compliance Dashboard - Migration 0005: development seed data
-- 1 team, 1 user, 5 patterns, 3 repositories. Safe to run twice.

INSERT OR IGNORE INTO teams (id, name, slug, description) VALUES
    ('00000000-0000-4000-8000-000000000001', 'Default Team', 'default-team', 'For initial setup');

INSERT OR IGNORE INTO users (id, team_id, email, name, role) VALUES
    ('00000000-0000-4000-8000-000000000101', '00000000-0000-4000-8000-000000000001', 'admin@example.com', 'Admin User', 'admin');

INSERT OR IGNORE INTO patterns (id, name, description, category, severity, file_patterns, detection_config, created_by) VALUES
    ('00000000-0000-4000-8000-000000000201', 'Hardcoded Secrets Detection', 'Secrets must not be in source; use a vault', 'Security', 'Critical',
     '["**/*.ts", "**/*.py"]', '{"patterns": ["password\\s*=", "api_key\\s*="], "caseSensitive": false}', '00000000-0000-4000-8000-000000000101'),
    ('00000000-0000-4000-8000-000000000202', 'Circular Dependencies', 'Modules must not import each other in a circle', 'Architecture', 'High',
     '["src/**"]', '{"maxDepth": 10}', '00000000-0000-4000-8000-000000000101'),
    ('00000000-0000-4000-8000-000000000203', 'Trailing Whitespace', 'Lines must not end in blanks', 'CodeStyle', 'Low',
     '["**/*"]', '{"patterns": ["[ \\t]+$"]}', '00000000-0000-4000-8000-000000000101'),
    ('00000000-0000-4000-8000-000000000204', 'N+1 Query Detection', 'A query inside a loop', 'Performance', 'High',
     '["src/**"]', '{"window": 20}', '00000000-0000-4000-8000-000000000101'),
    ('00000000-0000-4000-8000-000000000205', 'Missing Test Coverage', 'New code needs tests; it''s checked per file', 'Testing', 'Medium',
     '["src/**"]', '{"minimum": 80}', '00000000-0000-4000-8000-000000000101');

INSERT OR IGNORE INTO repositories (id, team_id, name, full_name, language, scan_frequency, enabled_patterns) VALUES
    ('00000000-0000-4000-8000-000000000301', '00000000-0000-4000-8000-000000000001', 'API Gateway', 'example/api-gateway', 'TypeScript', 'weekly',
     '["00000000-0000-4000-8000-000000000201", "00000000-0000-4000-8000-000000000202", "00000000-0000-4000-8000-000000000204"]'),
    ('00000000-0000-4000-8000-000000000302', '00000000-0000-4000-8000-000000000001', 'Authentication Service', 'example/auth-service', 'Go', 'daily',
     '["00000000-0000-4000-8000-000000000201", "00000000-0000-4000-8000-000000000205"]'),
    ('00000000-0000-4000-8000-000000000303', '00000000-0000-4000-8000-000000000001', 'Dashboard UI', 'example/dashboard-ui', 'TypeScript', 'manual',
     '["00000000-0000-4000-8000-000000000203", "00000000-0000-4000-8000-000000000205"]');
