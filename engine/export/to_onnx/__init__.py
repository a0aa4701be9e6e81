"""Converters to ONNX, one file a framework; each has `convert(model, rows, opset) -> bytes`."""
