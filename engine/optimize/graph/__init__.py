"""Work on ONNX graphs that several optimizers share."""
