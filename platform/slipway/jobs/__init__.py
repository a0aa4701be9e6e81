"""Background work that survives: PostgreSQL holds the truth, Redis only rings.

`job_kind` declares a kind of work, `submit` asks for it; leases, fences, retries, progress and the log
live here and nowhere else.
"""
