"""Addresses of signing in and of the settings of people and projects."""

from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from slipway.accounts import views
from slipway.accounts.forms import SignInForm

urlpatterns = [
    path(
        "login/",
        LoginView.as_view(
            template_name="accounts/login.html", authentication_form=SignInForm, redirect_authenticated_user=True
        ),
        name="login",
    ),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("settings/", views.members, name="settings"),
    path("settings/projects/<slug:slug>/members", views.member_set, name="member-set"),
    path("settings/tokens/", views.tokens, name="settings-tokens"),
    path("settings/tokens/<int:pk>/quota/", views.token_quota, name="token-quota"),
    path("settings/tokens/<int:pk>/revoke", views.token_revoke, name="token-revoke"),
    path("settings/language/", views.language, name="settings-language"),
]
