"""Whatever servers must see raises the generation, by whichever door it was changed."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION deployments_raise_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE deployments_desiredstate SET generation = generation + 1 WHERE id = 1;
    RETURN NULL;
END $$;
CREATE TRIGGER raise_generation AFTER INSERT OR DELETE OR UPDATE OF state, weight, artifact_id
    ON deployments_deployment FOR EACH STATEMENT EXECUTE FUNCTION deployments_raise_generation();
CREATE TRIGGER raise_generation AFTER DELETE OR UPDATE OF name, access, project_id
    ON deployments_endpoint FOR EACH STATEMENT EXECUTE FUNCTION deployments_raise_generation();
CREATE TRIGGER raise_generation AFTER INSERT OR DELETE OR UPDATE OF scope, digest, expires_at, user_id
    ON accounts_token FOR EACH STATEMENT EXECUTE FUNCTION deployments_raise_generation();
CREATE TRIGGER raise_generation AFTER INSERT OR DELETE OR UPDATE OF role, user_id, project_id
    ON accounts_membership FOR EACH STATEMENT EXECUTE FUNCTION deployments_raise_generation();
CREATE TRIGGER raise_generation AFTER UPDATE OF is_active, is_superuser
    ON accounts_user FOR EACH STATEMENT EXECUTE FUNCTION deployments_raise_generation();
"""
BACKWARD = """
DROP TRIGGER raise_generation ON accounts_user;
DROP TRIGGER raise_generation ON accounts_membership;
DROP TRIGGER raise_generation ON accounts_token;
DROP TRIGGER raise_generation ON deployments_endpoint;
DROP TRIGGER raise_generation ON deployments_deployment;
DROP FUNCTION deployments_raise_generation();
"""


class Migration(migrations.Migration):
    dependencies = [("deployments", "0002_weights_sum_to_100"), ("accounts", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
