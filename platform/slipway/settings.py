"""Django settings. Everything that may differ between places comes from `slipway.environment`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import structlog

from slipway import paths
from slipway.environment import environment

ROOT = Path(__file__).resolve().parent.parent.parent


def database_from(url: str) -> dict[str, object]:
    """Django's database entry for a `postgresql://user:password@host:port/name?host=…` address."""
    parts = urlsplit(url)
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    host = query.pop("host", None) or parts.hostname or ""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(query.pop("port", "") or parts.port or ""),
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"connect_timeout": 5, **query},
    }


SECRET_KEY = environment.secret_key or "only-for-commands-that-need-no-secret-" + "x" * 40
DEBUG = environment.debug
ALLOWED_HOSTS = environment.allowed_hosts
CSRF_TRUSTED_ORIGINS = [environment.public_base]

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django_filters",
    "django_htmx",
    "django_structlog",
    "csp",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "slipway.api",
    "slipway.accounts",
    "slipway.audit",
    "slipway.jobs",
    "registry",
    "deployments",
    "monitoring",
    "workers",
    "slipway.dashboard",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "slipway.api.middleware.Gzip",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "slipway.api.middleware.RequestId",
    "django_structlog.middlewares.RequestMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "slipway.api.middleware.DatabaseAway",
]

ROOT_URLCONF = "slipway.urls"
WSGI_APPLICATION = "slipway.asgi.django_wsgi"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "slipway.dashboard.context.shell",
            ],
            "builtins": ["slipway.dashboard.templatetags.slipway"],
        },
    }
]

DATABASES = {"default": database_from(environment.database_url or "postgresql://slipway@localhost/slipway")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["slipway.accounts.backends.Patient"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [ROOT / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATICFILES_DIRS = [ROOT / "static"]
STATIC_ROOT = paths.home() / "static"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# Sessions and cookies. Secure cookies only where TLS ends in front of us: a laptop speaks plain HTTP.
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = environment.https
CSRF_COOKIE_SECURE = environment.https
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_SSL_REDIRECT = False
SECURE_HSTS_SECONDS = 31_536_000 if environment.https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = environment.https
SECURE_HSTS_PRELOAD = environment.https
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if environment.https else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SILENCED_SYSTEM_CHECKS = (
    [] if environment.https else ["security.W004", "security.W008", "security.W012", "security.W016"]
)
CONTENT_SECURITY_POLICY = {
    "EXCLUDE_URL_PREFIXES": ["/admin/", "/api/docs/"],
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "object-src": ["'none'"],
    },
}
# Uploads are streamed by our own handler; everything else is small.
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024
FILE_UPLOAD_TEMP_DIR = None

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "slipway.accounts.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["slipway.accounts.permissions.ProjectPermission"],
    "DEFAULT_RENDERER_CLASSES": ["slipway.api.renderers.OrjsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["slipway.api.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "slipway.api.pagination.Cursor",
    "DEFAULT_FILTER_BACKENDS": ["slipway.api.filters.ListFilter"],
    "DEFAULT_SCHEMA_CLASS": "slipway.api.schema.ProblemSchema",
    "EXCEPTION_HANDLER": "slipway.api.problems.handler",
    "URL_FORMAT_OVERRIDE": None,  # `format` is a word of ours: the form of an artifact
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Slipway",
    "DESCRIPTION": "From a trained model to a monitored, reversible production endpoint.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "JobState": "slipway.jobs.models.State",
        "VersionState": "registry.models.VersionState",
        "VersionOrigin": "registry.models.Origin",
        "EnvironmentOrigin": "registry.models.EnvironmentOrigin",
        "DeploymentState": "deployments.models.DeploymentState",
        "RolloutState": "deployments.models.RolloutState",
        "AlertState": "monitoring.models.AlertState",
        "Role": "slipway.accounts.models.Role",
    },
}

UNFOLD = {
    "SITE_TITLE": "Slipway",
    "SITE_HEADER": "Slipway",
    "SITE_SYMBOL": "sailing",
    "SITE_URL": "/",
    # The accent of the dashboard's token sheet, from light to dark.
    "COLORS": {
        "primary": {
            "50": "#f0fdfa", "100": "#ccfbf1", "200": "#99f6e4", "300": "#5eead4", "400": "#2dd4bf",
            "500": "#14b8a6", "600": "#0f766e", "700": "#0f766e", "800": "#115e59", "900": "#134e4a",
            "950": "#042f2e",
        }
    },
}  # fmt: skip


# Celery: Redis is only a doorbell, so nothing here tries to make it durable.
def _celery_broker(url: str) -> str:
    """Celery's spelling of a Redis address (`redis+socket://` for a Unix socket)."""
    return url.replace("unix://", "redis+socket://", 1) if url.startswith("unix://") else url


CELERY_BROKER_URL = _celery_broker(environment.redis_url)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_ACKS_LATE = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 15,
}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_TIMEZONE = "UTC"
REDIS_URL = environment.redis_url

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.filter_by_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processor": structlog.processors.JSONRenderer(),
            "foreign_pre_chain": [
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso"),
            ],
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["console"], "level": environment.log_level},
    "loggers": {
        "httpx": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "django_structlog.middlewares.request": {"level": "WARNING"},
    },
}
