-- Rollback of add_password_reset_table
DROP TABLE IF EXISTS password_resets, wishlist, reviews, order_items, orders, products, categories, users;
DROP TYPE IF EXISTS "OrderStatus";
DROP TYPE IF EXISTS "UserRole";
