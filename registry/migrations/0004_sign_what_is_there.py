"""Signs the artifacts of before, once: what comes unsigned later is for `manage.py sign_artifacts` and a person."""

from django.db import migrations
from django.utils import timezone


def sign(apps, schema_editor):
    Artifact = apps.get_model("registry", "Artifact")
    rows = Artifact.objects.filter(attestation={}).select_related("version__model__project")
    if not rows.exists():
        return
    from engine.formats import signing
    from slipway import paths
    from slipway.launch import keys

    keys.signing_keys()
    key = signing.private_key(paths.signing_key().read_bytes())
    for row in rows.iterator(chunk_size=500):
        recorded = signing.Recorded(
            project=row.version.model.project.slug,
            model=row.version.model.name,
            version=row.version.number,
            format=row.format,
            sha256=row.sha256,
            size=row.size,
            file_name=row.file_name,
        )
        Artifact.objects.filter(pk=row.pk).update(attestation=signing.sign(recorded, key, timezone.now()))


class Migration(migrations.Migration):

    dependencies = [("registry", "0003_artifact_attestation"), ("accounts", "0001_initial")]

    operations = [migrations.RunPython(sign, migrations.RunPython.noop)]
