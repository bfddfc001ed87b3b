-- The queries that the performance indexes are for.

-- Array search
-- expect-index: idx_products_tags_gin
SELECT * FROM products WHERE tags @> ARRAY['t5'];

-- Product filtering
-- expect-index: idx_products_status
SELECT * FROM products WHERE status = 'ACTIVE';

-- expect-index: idx_products_price
SELECT * FROM products WHERE price = 5;

-- expect-index: idx_products_vendor_status_created
SELECT * FROM products
WHERE vendor_id = '00000000-0000-4000-8000-000000000001' AND status = 'ACTIVE'
ORDER BY created_at DESC LIMIT 20;

-- Order history
-- expect-index: idx_orders_user_status_created
SELECT * FROM orders
WHERE user_id = '00000000-0000-4000-8000-000000000001' AND status = 'SHIPPED'
ORDER BY created_at DESC LIMIT 20;

-- User look-ups
-- expect-index: idx_users_email_active or users_email_key
SELECT * FROM users WHERE email = 'a@example.com' AND is_active;

-- Category navigation
-- expect-index: idx_categories_parent
SELECT * FROM categories WHERE parent_id = '00000000-0000-4000-8000-000000000001';

-- Analytics: newest first
-- expect-index: idx_traffic_analytics_created
SELECT * FROM traffic_analytics ORDER BY created_at DESC LIMIT 100;

-- Consent history: quoted names
-- expect-index: ConsentLog_userId_createdAt_idx
SELECT * FROM "ConsentLog" WHERE "userId" = '00000000-0000-4000-8000-000000000001' ORDER BY "createdAt" DESC LIMIT 1;
