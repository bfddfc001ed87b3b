-- What the pending changes document promises of the shop's database. Each statement answers one number. The document
-- writes 'public' where current_schema() stands here; the migration tool's own tables are not counted.

-- Verify tables created
-- expect: 5
SELECT count(*) FROM information_schema.tables
WHERE table_schema = current_schema()
  AND table_name IN ('organizations', 'organization_members', 'role_permissions', 'vendor_profiles', 'gift_cards');

-- expect: 43
SELECT count(*) FROM information_schema.tables
WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' AND table_name NOT LIKE 'dal\_migration%';

-- Verify indexes created
-- expect: 38
SELECT count(*) FROM pg_indexes
WHERE schemaname = current_schema() AND indexname LIKE 'idx\_%';

-- Primary keys and unique constraints included
-- expect: 105
SELECT count(*) FROM pg_indexes
WHERE schemaname = current_schema() AND tablename NOT LIKE 'dal\_migration%';

-- The thirteen that the document names
-- expect: 13
SELECT count(*) FROM pg_indexes
WHERE schemaname = current_schema()
  AND indexname IN ('idx_products_status', 'idx_products_vendor_status_created', 'idx_products_category_status_created',
                    'idx_products_price', 'idx_products_stock', 'idx_products_sku_active', 'idx_products_tags_gin',
                    'idx_orders_user_status_created', 'idx_orders_status_created', 'idx_orders_guest_email',
                    'idx_orders_tracking_carrier', 'idx_users_email_active', 'idx_users_role_created');

-- GIN index for array search
-- expect: gin
SELECT am.amname FROM pg_class AS c
JOIN pg_am AS am ON am.oid = c.relam
WHERE c.oid = to_regclass('idx_products_tags_gin');

-- Left by a build that was cut short
-- expect: 0
SELECT count(*) FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE c.relnamespace = current_schema()::regnamespace AND NOT (i.indisvalid AND i.indisready);

-- Check foreign keys
-- expect: 54
SELECT count(*) FROM information_schema.table_constraints
WHERE constraint_type = 'FOREIGN KEY' AND table_schema = current_schema();

-- Not validated
-- expect: 0
SELECT count(*) FROM pg_constraint
WHERE connamespace = current_schema()::regnamespace AND NOT convalidated;

-- expect: 11
SELECT count(*) FROM pg_type WHERE typtype = 'e' AND typnamespace = current_schema()::regnamespace;

-- The verification stages, in their order
-- expect: KycStatus
SELECT t.typname FROM pg_type AS t
JOIN pg_enum AS e ON e.enumtypid = t.oid
WHERE t.typnamespace = current_schema()::regnamespace
GROUP BY t.typname
HAVING array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
    = ARRAY['NOT_STARTED', 'SUBMITTED', 'IN_REVIEW', 'APPROVED', 'REJECTED'];

-- Organisations have owners
-- expect: RESTRICT
SELECT r.delete_rule FROM information_schema.referential_constraints AS r
WHERE r.constraint_schema = current_schema() AND r.constraint_name = 'organizations_ownerId_fkey';

-- expect: 1
SELECT count(*) FROM pg_trigger
WHERE tgrelid = to_regclass('organizations') AND tgname = 'organizations_touch_updated_at' AND NOT tgisinternal;
