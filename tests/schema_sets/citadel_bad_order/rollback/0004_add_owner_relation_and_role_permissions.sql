-- Rollback of add_owner_relation_and_role_permissions
DROP TABLE IF EXISTS role_permissions;
DROP INDEX IF EXISTS "organizations_ownerId_idx";
ALTER TABLE organizations DROP CONSTRAINT IF EXISTS "organizations_ownerId_fkey";
ALTER TABLE organizations DROP COLUMN IF EXISTS "ownerId";
