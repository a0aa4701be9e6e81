"""The ONNX models that the checks ask for, from plain identities to loops, optional inputs and sequences."""
