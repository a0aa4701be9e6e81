"""MLflow, the durable store of runs and bytes: what may pass to it, how we ask it, what is new in it."""
