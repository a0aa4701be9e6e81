"""The weights of an endpoint sum to 100 (or all are 0) at the end of every transaction."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION deployments_weights_hold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    touched bigint := coalesce(NEW.endpoint_id, OLD.endpoint_id);
    total integer;
BEGIN
    SELECT coalesce(sum(weight), 0) INTO total FROM deployments_deployment WHERE endpoint_id = touched;
    IF total NOT IN (0, 100) THEN
        RAISE EXCEPTION 'weights of endpoint % sum to %, not to 100', touched, total
            USING ERRCODE = 'check_violation', CONSTRAINT = 'deployment_weights_sum_to_100';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER deployment_weights_sum_to_100
    AFTER INSERT OR DELETE OR UPDATE OF weight, endpoint_id ON deployments_deployment
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION deployments_weights_hold();
INSERT INTO deployments_desiredstate (id, generation) VALUES (1, 1);
"""
BACKWARD = """
DELETE FROM deployments_desiredstate;
DROP TRIGGER deployment_weights_sum_to_100 ON deployments_deployment;
DROP FUNCTION deployments_weights_hold();
"""


class Migration(migrations.Migration):
    dependencies = [("deployments", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
