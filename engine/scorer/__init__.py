"""The PMML scorer: a process that answers with jpmml-evaluator what our ONNX converter has no exact way for.

`python -m engine.scorer` is started by the inference server, which hands it a listening Unix socket. It becomes a
sandboxed child in the prepared environment `pmml`, one Java virtual machine for all PMML models of a server. Only
there does code under the AGPL run (jpmml-evaluator); nothing of it is imported by Slipway's own processes.
"""
