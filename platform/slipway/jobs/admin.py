"""Jobs in the admin console: to look at; the kernel alone writes them."""

from __future__ import annotations

from django.contrib import admin

from slipway.api.admin import ReadOnlyAdmin
from slipway.jobs.models import Job


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    list_display = ["id", "kind", "subject", "state", "attempt", "failures", "progress", "created_at"]
    list_filter = ["state", "kind", "queue", "project"]
    search_fields = ["subject", "key", "reference"]
    list_select_related = ["project"]
