"""What goes into a TorchServe archive beside the model; nothing here is imported by Slipway's own processes."""
