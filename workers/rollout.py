"""Queue `rollout`."""
