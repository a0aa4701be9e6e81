"""Queue `ticks`."""
