"""Queue `retrain`."""
