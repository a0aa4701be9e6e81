"""Parts of `bench/optimize.py`."""
