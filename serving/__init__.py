"""The inference server: Open Inference Protocol V2 on ONNX Runtime, without Django or a database.

`python -m serving` runs it, standalone over a folder of models or following the desired state of a
control plane. It imports nothing of this repository but `engine.formats`, and never unpickles anything.
"""

VERSION = "0.1.0"
