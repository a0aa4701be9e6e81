"""Users, projects (the permission boundary), memberships and API tokens."""

from __future__ import annotations

import hashlib
import secrets

from django.contrib.auth.models import AbstractUser
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

slug_validator = RegexValidator(r"^[a-z0-9][a-z0-9-]{0,62}$", _("Lower-case letters, digits and hyphens, at most 63."))


class User(AbstractUser):
    """A person or a robot; the superuser sees every project."""


class Role(models.TextChoices):
    VIEWER = "viewer", _("Viewer")
    DEVELOPER = "developer", _("Developer")
    APPROVER = "approver", _("Approver")
    OPERATOR = "operator", _("Operator")
    ADMIN = "admin", _("Admin")


class Project(models.Model):
    """The permission boundary: everything else belongs to exactly one project."""

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(auto_now_add=True)
    members = models.ManyToManyField(User, through="Membership", related_name="projects")

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Membership(models.Model):
    """One user's role in one project."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=20, choices=Role.choices)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="membership_once"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user} · {self.project} · {self.role}"


class Scope(models.TextChoices):
    READ = "read", _("Read")
    WRITE = "write", _("Read and change")
    INFER = "infer", _("Call endpoints")


def token_digest(token: str) -> str:
    """What is stored of a token: the SHA-256 of its 256 random bits, so no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


LEAST_RATE, MOST_RATE = 0.001, 1_000_000


class Token(models.Model):
    """An API token. Only its digest is kept; the text is shown once, when it is made."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100)
    scope = models.CharField(max_length=10, choices=Scope.choices, default=Scope.WRITE)
    digest = models.CharField(max_length=64, unique=True)
    prefix = models.CharField(max_length=12)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    rate = models.FloatField(null=True, blank=True, help_text="Inference requests a second; empty: no quota")
    burst = models.PositiveIntegerField(null=True, blank=True, help_text="Requests at once")
    revision = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(rate__isnull=True, burst__isnull=True)
                | Q(
                    # Half of it would be unknown, which a check lets pass.
                    rate__isnull=False,
                    burst__isnull=False,
                    rate__range=(LEAST_RATE, MOST_RATE),
                    burst__range=(1, MOST_RATE),
                ),
                name="token_quota_whole",
            ),
            models.CheckConstraint(condition=Q(digest__regex=r"^[0-9a-f]{64}$"), name="token_digest_hex"),
            models.CheckConstraint(condition=Q(scope__in=Scope.values), name="token_scope_known"),
        ]

    def __str__(self) -> str:
        return f"{self.prefix}… ({self.name})"

    @staticmethod
    def new_text() -> str:
        """A fresh token text; the prefix makes leaked tokens easy to find in logs and repositories."""
        return "slip_" + secrets.token_urlsafe(32)
