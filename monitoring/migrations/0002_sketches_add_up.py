"""Merging of counts in the database, so that concurrent servers add to one window without reading it."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION counts_added(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_object_agg(key, total), '{}'::jsonb) FROM (
        SELECT key, sum(value::bigint) AS total
        FROM (SELECT * FROM jsonb_each_text(a) UNION ALL SELECT * FROM jsonb_each_text(b)) both_sides
        GROUP BY key
    ) merged
$$;
CREATE FUNCTION histograms_added(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_object_agg(key, counts_added(coalesce(a -> key, '{}'), coalesce(b -> key, '{}'))), '{}'::jsonb)
    FROM (SELECT jsonb_object_keys(a) AS key UNION SELECT jsonb_object_keys(b)) names
$$;
CREATE AGGREGATE counts_sum(jsonb) (SFUNC = counts_added, STYPE = jsonb, INITCOND = '{}');
CREATE AGGREGATE histograms_sum(jsonb) (SFUNC = histograms_added, STYPE = jsonb, INITCOND = '{}');
"""
BACKWARD = """
DROP AGGREGATE histograms_sum(jsonb);
DROP AGGREGATE counts_sum(jsonb);
DROP FUNCTION histograms_added(jsonb, jsonb);
DROP FUNCTION counts_added(jsonb, jsonb);
"""


class Migration(migrations.Migration):
    dependencies = [("monitoring", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
