"""Makes variants of an ONNX model: one file per optimizer."""
