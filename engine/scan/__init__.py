"""Looks at untrusted model files before anything else opens them. Always run in the sandbox."""

from engine.sandbox.limits import Limits

SCAN_LIMITS = Limits(seconds=120, memory_mb=4096)
CHECK_LIMITS = Limits(seconds=60, memory_mb=3072, data_mb=3072)
