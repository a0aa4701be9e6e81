"""What a model is: models, versions, artifacts, datasets, measurements, lineage, and MLflow's part in it."""
