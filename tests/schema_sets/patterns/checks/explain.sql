-- The queries that the strategy document gives times for, each with the indexes that may serve it.

-- Find violations by repository
-- expect-index: idx_violations_repo or idx_violations_repo_status or idx_violations_repo_severity_status
SELECT * FROM violations WHERE repository_id = 'r';

-- Find pending approvals for user
-- expect-index: idx_approvals_approver_status
SELECT * FROM approvals WHERE approver_id = 'u' AND status = 'pending';

-- Calculate compliance metrics: of every repository, so each is read
-- allow-scan
SELECT * FROM repository_compliance_metrics;

-- Search violations by status
-- expect-index: idx_violations_status or idx_violations_status_detected
SELECT * FROM violations WHERE status = 'open';

-- Find overdue approvals
-- expect-index: idx_approvals_due_at
SELECT * FROM approvals WHERE due_at < '2026-01-01';
