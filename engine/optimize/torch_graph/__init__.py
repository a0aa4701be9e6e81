"""Runs an ONNX graph in torch, so that its weights can be trained and written back into the same file."""
