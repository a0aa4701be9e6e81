"""When each of the last generations came: a process that lacks one says for how long."""

from django.db import migrations, models
from django.db.models.functions import Now

# The row of the generation is locked by the update that raises it, so entries come one after another.
FORWARD = """
CREATE FUNCTION deployments_note_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deployments_raised (generation, at) VALUES (NEW.generation, clock_timestamp())
        ON CONFLICT (generation) DO NOTHING;
    DELETE FROM deployments_raised WHERE generation <= NEW.generation - 1000;
    RETURN NULL;
END $$;
CREATE TRIGGER note_generation AFTER UPDATE OF generation
    ON deployments_desiredstate FOR EACH ROW EXECUTE FUNCTION deployments_note_generation();
"""
BACKWARD = """
DROP TRIGGER note_generation ON deployments_desiredstate;
DROP FUNCTION deployments_note_generation();
"""


class Migration(migrations.Migration):
    dependencies = [("deployments", "0006_generation_follows_settings")]
    operations = [
        migrations.CreateModel(
            name="Raised",
            fields=[
                ("generation", models.BigIntegerField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField(db_default=Now())),
            ],
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
