"""Triton's statistics and model-configuration extensions, as plain dictionaries for REST and gRPC.

Field meanings follow Triton's protocol documents; times are nanoseconds. A request counts once in
`inference_count`, however many rows it has.
"""

from __future__ import annotations

from typing import Any

from serving.model import Model, Tensor
from serving.protocol.errors import ServingError
from serving.table import Deployment, Endpoint

_CONFIG_TYPES = {"BYTES": "TYPE_STRING"}


def statistics(endpoints: list[Endpoint], version: str | None, snapshots: list[Any]) -> Any:
    """`model_stats` of the deployments of some endpoints (of one version when asked), over all processes'
    `snapshots`. Raises ServingError 404 for an unknown version."""
    totals: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in snapshots:
        for key, total in one.get("deployments", []):
            held = totals.setdefault(tuple(key), {})
            for name, value in total.items():
                if isinstance(value, dict):
                    counts = held.setdefault(name, {})
                    for bucket, count in value.items():
                        counts[bucket] = counts.get(bucket, 0) + count
                elif name == "last":
                    held[name] = max(held.get(name, 0), value)
                else:
                    held[name] = held.get(name, 0) + value
    found = []
    for endpoint in endpoints:
        chosen = [d for d in endpoint.deployments if version is None or d.version == version]
        if version is not None and not chosen:
            raise ServingError(404, f"model {endpoint.name!r} has no such version")
        for deployment in chosen:
            if deployment.answers:
                key = (deployment.endpoint, deployment.version, deployment.id)
                found.append(_of_deployment(deployment, totals.get(key, {})))
    return {"model_stats": found}


def _of_deployment(deployment: Deployment, total: dict[str, Any]) -> dict[str, Any]:
    def get(name: str) -> float:
        return float(total.get(name, 0))

    requests, errors, hits = int(get("requests")), int(get("errors")), int(get("cache_hits"))
    good = requests - errors
    runs: dict[str, int] = total.get("batches", {})
    known = get("input_us") + get("queue_us") + get("compute_us")

    def duration(count: int, micros: float) -> dict[str, int]:
        return {"count": count, "ns": max(0, round(micros * 1000))}

    memory = deployment.model.memory_bytes if deployment.model is not None else 0
    return {
        "name": deployment.endpoint,
        "version": deployment.version,
        "last_inference": round(get("last") * 1000),
        "inference_count": good,
        "execution_count": sum(runs.values()),
        "inference_stats": {
            "success": duration(good, get("total_us") - get("error_us")),
            "fail": duration(errors, get("error_us")),
            "queue": duration(requests, get("queue_us")),
            "compute_input": duration(requests, get("input_us")),
            "compute_infer": duration(requests - hits, get("compute_us")),
            "compute_output": duration(requests, get("total_us") - known),
            "cache_hit": duration(hits, 0),
            "cache_miss": duration(0, 0),
        },
        # Times by batch size are not kept; how many runs had which size is.
        "batch_stats": [
            {"batch_size": size, "compute_infer": duration(count, 0)}
            for size, count in sorted((int(size), count) for size, count in runs.items())
        ],
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": memory}],
    }


def configuration(endpoint: Endpoint, deployment: Deployment) -> dict[str, Any]:
    """Triton's model configuration of what is loaded. Raises ServingError 503 when nothing is."""
    model = deployment.model
    if model is None:
        raise ServingError(503, "the model is not ready")
    most = deployment.batch_most
    config: dict[str, Any] = {
        "name": endpoint.name,
        "platform": model.platform,
        "backend": model.backend,
        "versions": sorted({d.version for d in endpoint.deployments}),
        # Shapes below are whole, first dimension included, as Triton has them for a size of 0.
        "max_batch_size": 0,
        "input": [_described(tensor, "input") for tensor in model.inputs],
        "output": [_described(tensor, "output") for tensor in model.outputs],
        "instance_group": [{"name": endpoint.name, "kind": _kind(model), "count": 1}],
        "parameters": {
            "deployment": {"string_value": deployment.id},
            "provider": {"string_value": model.provider},
            "shared_run_rows": {"string_value": str(most)},
            "shared_run_reason": {"string_value": model.batching.why},
        },
    }
    if endpoint.cache is not None:
        config["response_cache"] = {"enable": True}
    return config


def _kind(model: Model) -> str:
    return "KIND_GPU" if model.provider == "cuda" else "KIND_CPU"


def _described(tensor: Tensor, side: str) -> dict[str, Any]:
    name = tensor.datatype.name
    described: dict[str, Any] = {
        "name": tensor.name,
        "data_type": _CONFIG_TYPES.get(name, f"TYPE_{name}"),
        "dims": list(tensor.shape or ()),
    }
    if side == "input":
        described["optional"] = tensor.optional
    return described
