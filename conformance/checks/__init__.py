"""The checks; importing this registers all of them, in the order of the matrix."""

from conformance.checks import (  # noqa: I001 - the order of the matrix
    discovery,
    infer,
    refusals,
    values,
    http,
    binary,
    binary_refusals,
    extensions,
    models,
    rpc,
    rpc_refusals,
    rpc_extensions,
)

__all__ = [
    "binary",
    "binary_refusals",
    "discovery",
    "extensions",
    "http",
    "infer",
    "models",
    "refusals",
    "rpc",
    "rpc_extensions",
    "rpc_refusals",
    "values",
]
