"""Artifacts are signed, and the signed statement is about the row that holds it: digest, format, size."""

from django.db import migrations, models

# coalesce: a check that comes out as NULL would pass.
FORWARD = """
ALTER TABLE registry_artifact ADD CONSTRAINT artifact_signed_as_it_is CHECK (
    attestation = '{}'::jsonb OR coalesce(
        jsonb_typeof(attestation->'signatures') = 'array' AND attestation->'signatures'->0->>'sig' <> ''
        AND jsonb_build_array(
            convert_from(decode(attestation->>'payload', 'base64'), 'UTF8')::jsonb #> '{subject,0,digest,sha256}',
            convert_from(decode(attestation->>'payload', 'base64'), 'UTF8')::jsonb #> '{predicate,format}',
            convert_from(decode(attestation->>'payload', 'base64'), 'UTF8')::jsonb #> '{predicate,size}'
        ) = jsonb_build_array(sha256, format, size), false)
);
"""
BACKWARD = "ALTER TABLE registry_artifact DROP CONSTRAINT artifact_signed_as_it_is;"


class Migration(migrations.Migration):

    dependencies = [("registry", "0002_artifact_by_digest")]

    operations = [
        migrations.AddField(
            model_name="artifact",
            name="attestation",
            field=models.JSONField(blank=True, default=dict),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
