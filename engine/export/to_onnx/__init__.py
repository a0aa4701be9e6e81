"""Converters to ONNX, one file a framework; each has `convert(model, rows, opset) -> bytes`, or with the bytes a
dict of what is worth recording."""
