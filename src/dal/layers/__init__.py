"""What wraps a store and is a store: metrics, retry, group commit."""
