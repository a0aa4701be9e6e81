"""Queue `export`."""
