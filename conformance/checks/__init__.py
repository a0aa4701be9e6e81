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
    rpc_more,
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
    "rpc_more",
    "values",
]
