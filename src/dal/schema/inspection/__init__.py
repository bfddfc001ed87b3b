"""What a database holds, by name: read from the engine's own catalogue, and compared."""
