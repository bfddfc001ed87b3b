-- Rollback of add_privacy_consent
DROP TABLE IF EXISTS "AgreedTerms", "DataExportRequest", "DataDeletionRequest", "ConsentLog";
DROP TYPE IF EXISTS "DataRequestStatus";
