-- Rollback of sync_schema_phase30
DROP TABLE IF EXISTS traffic_analytics, revenue_analytics, category_analytics, product_analytics, vendor_analytics,
    store_credit_transactions, store_credits, gift_card_transactions, gift_cards;
