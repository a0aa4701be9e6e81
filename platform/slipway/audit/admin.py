"""The audit log in the admin console."""

from __future__ import annotations

from django.contrib import admin

from slipway.api.admin import ReadOnlyAdmin
from slipway.audit.models import Entry


@admin.register(Entry)
class EntryAdmin(ReadOnlyAdmin):
    list_display = ["position", "at", "actor_name", "action", "object_type", "object_id", "project"]
    list_filter = ["action", "object_type", "project"]
    search_fields = ["actor_name", "object_id", "digest"]
    list_select_related = ["project"]
