"""Parts of `bench/export.py`."""
