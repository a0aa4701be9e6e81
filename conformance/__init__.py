"""A conformance suite for the Open Inference Protocol V2: REST, gRPC, and Triton's published extensions.

It knows nothing of any server: it speaks HTTP and gRPC to a base URL, and the models it asks for are made by
`python -m conformance.models DIR`.
"""
