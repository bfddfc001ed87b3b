-- Rollback of add_vendor_management_system
DROP TABLE IF EXISTS vendor_performance_metrics, vendor_commission_rules, vendor_payouts, vendor_applications, vendor_profiles;
DROP TYPE IF EXISTS "PayoutMethod";
DROP TYPE IF EXISTS "PayoutStatus";
DROP TYPE IF EXISTS "VendorApplicationStatus";
DROP TYPE IF EXISTS "VendorStatus";
