"""Users, projects, memberships and tokens in the admin console."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from slipway.accounts import services
from slipway.accounts.models import Membership, Project, Token, User

admin.site.unregister(Group)  # roles are per project; Django's groups mean nothing here


class MembershipInline(TabularInline):
    model = Membership
    extra = 0
    autocomplete_fields = ["user"]


@admin.register(Project)
class ProjectAdmin(ModelAdmin):
    list_display = ["slug", "name", "created_at"]
    search_fields = ["slug", "name"]
    inlines = [MembershipInline]

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Saves the members, with the audit entries that the pages and the API write."""
        before = {each.instance.pk: each.initial.get("role") for each in formset.initial_forms}
        actor: Any = request.user
        for each in formset.deleted_forms:
            if (role := before.get(each.instance.pk)) is not None:
                services.member_told(actor=actor, member=each.instance, before=role, role=None)
        super().save_formset(request, form, formset, change)
        for member in [*formset.new_objects, *(row for row, _fields in formset.changed_objects)]:
            services.member_told(actor=actor, member=member, before=before.get(member.pk), role=member.role)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "email", "is_active", "is_superuser", "last_login"]
    filter_horizontal = []
    fieldsets = [
        (None, {"fields": ["username", "password"]}),
        ("Person", {"fields": ["first_name", "last_name", "email"]}),
        ("Rights", {"fields": ["is_active", "is_staff", "is_superuser"]}),
        ("Times", {"fields": ["last_login", "date_joined"]}),
    ]


@admin.register(Token)
class TokenAdmin(ModelAdmin):
    """Tokens can be revoked here, not made: their text is shown once, to their owner."""

    list_display = ["prefix", "name", "user", "scope", "rate", "burst", "created_at", "last_used_at", "expires_at"]
    list_filter = ["scope"]
    search_fields = ["name", "prefix", "user__username"]
    list_select_related = ["user"]
    exclude = ["digest"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def delete_model(self, request: HttpRequest, obj: Token) -> None:
        services.token_revoke(user=obj.user, token_id=obj.pk, actor=cast(User, request.user))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Token]) -> None:
        for token in queryset.select_related("user"):
            self.delete_model(request, token)
