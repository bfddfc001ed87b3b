-- Rollback of organization_module
DROP TABLE IF EXISTS webhook_event_logs, webhook_dead_letters, webhook_deliveries, webhooks, organization_invoices,
    organization_billing, organization_audit_logs, organization_api_keys, organization_invitations, kyc_applications,
    organization_members, teams, departments, organization_roles, permissions, organizations;
DROP FUNCTION IF EXISTS touch_updated_at();
DROP TYPE IF EXISTS "KycStatus";
DROP TYPE IF EXISTS "MemberStatus";
DROP TYPE IF EXISTS "OrganizationStatus";
DROP TYPE IF EXISTS "OrganizationType";
