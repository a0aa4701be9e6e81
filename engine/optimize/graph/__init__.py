"""What optimizers share about ONNX graphs: weights and layers, and channels that may be taken out."""
