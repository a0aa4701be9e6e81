"""Where models run: targets, endpoints, deployments, rollouts, and the state that servers should have."""
