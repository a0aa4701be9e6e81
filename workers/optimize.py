"""Queue `optimize`."""
