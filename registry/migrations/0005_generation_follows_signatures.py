"""An artifact that was signed anew must reach the servers, although no deployment changed.

The function is of the room above; the trigger is on a table of this one.
"""

from django.db import migrations

FORWARD = """
CREATE TRIGGER raise_generation AFTER UPDATE OF attestation
    ON registry_artifact FOR EACH STATEMENT EXECUTE FUNCTION deployments_raise_generation();
"""
BACKWARD = "DROP TRIGGER raise_generation ON registry_artifact;"


class Migration(migrations.Migration):
    dependencies = [("registry", "0004_sign_what_is_there"), ("deployments", "0003_generation_follows_changes")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
