"""The generation also rises with serving settings, with what runs a deployment, and with a token's quota."""

from django.db import migrations

TRIGGER = """
DROP TRIGGER raise_generation ON {table};
CREATE TRIGGER raise_generation AFTER {events} OF {columns}
    ON {table} FOR EACH STATEMENT EXECUTE FUNCTION deployments_raise_generation();
"""
TABLES = [
    (
        "deployments_deployment",
        "INSERT OR DELETE OR UPDATE",
        "state, weight, artifact_id",
        ", provider, upstream",
    ),
    (
        "deployments_endpoint",
        "DELETE OR UPDATE",
        "name, access, project_id",
        ", sticky_header, limit_concurrency, limit_queue, cache_mb, cache_ttl_s, batching_mode, batching_max,"
        " batching_budget_ms",
    ),
    ("accounts_token", "INSERT OR DELETE OR UPDATE", "scope, digest, expires_at, user_id", ", rate, burst"),
]


def sql(more: bool) -> str:
    return "".join(
        TRIGGER.format(table=table, events=events, columns=columns + (new if more else ""))
        for table, events, columns, new in TABLES
    )


class Migration(migrations.Migration):
    dependencies = [("deployments", "0005_serving_settings"), ("accounts", "0002_token_quota")]
    operations = [migrations.RunSQL(sql(more=True), sql(more=False))]
