"""How deployments do: telemetry windows, alerts, and the policies that retrain."""
