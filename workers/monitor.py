"""Queue `monitor`."""
