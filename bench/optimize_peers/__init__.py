"""Optimizers of others that `bench/optimize.py` compares with."""
