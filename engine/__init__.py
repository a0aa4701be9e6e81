"""Offline work on models: pure Python, no Django, no Celery, no database."""
