"""Readings and rewritings of ONNX graphs that several optimizers share."""
