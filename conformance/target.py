"""The server under test: its address, the names its models go by, and requests to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from conformance.core import Failed, NotOffered, expect
from conformance.tensors import from_json, pack, unpack
from conformance.wire import Wire

if TYPE_CHECKING:
    from conformance.rpc.client import Rpc

HEADER = "Inference-Header-Content-Length"
# A compressed answer would hide its true length.
PLAIN = {"Accept-Encoding": "identity"}
JSON = {"Content-Type": "application/json"}


class _Fresh(httpx.HTTPTransport):
    """Asks once more on a new connection when a kept one turns out to be closed."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return super().handle_request(request)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            return super().handle_request(request)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


class Target:
    """A base URL and, optionally, the address of its gRPC door. `names` maps a fixture to the server's name."""

    def __init__(
        self, base: str, grpc: str | None = None, names: dict[str, str] | None = None, seconds: float = 20
    ) -> None:
        self.base = base.rstrip("/")
        self.grpc_address = grpc
        self.names = names or {}
        self.client = httpx.Client(
            base_url=self.base, timeout=seconds, transport=_Fresh(), trust_env=False, headers=PLAIN
        )
        self._there: dict[str, str] = {}
        self._rpc: Rpc | None = None
        self._binary: str | None = None

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        if self._rpc is not None:
            self._rpc.close()

    def wire(self, seconds: float = 10) -> Wire:
        """A bare connection."""
        return Wire(self.base, seconds)

    @property
    def rpc(self) -> Rpc:
        """The gRPC door. Raises NotOffered."""
        if self.grpc_address is None:
            raise NotOffered("no gRPC address was given")
        if self._rpc is None:
            try:
                from conformance.rpc.client import Rpc
            except ImportError as error:
                raise NotOffered(f"grpcio and protobuf are not installed here ({error.name})") from None
            self._rpc = Rpc(self.grpc_address)
        return self._rpc

    def get(self, path: str) -> httpx.Response:
        """GET of a path below the base URL."""
        return self.client.get(path)

    def model(self, fixture: str) -> str:
        """The server's name of a fixture. Raises NotOffered when the server does not have it ready."""
        name = self.names.get(fixture, fixture)
        if fixture not in self._there:
            answer = self.get(f"/v2/models/{name}/ready")
            self._there[fixture] = "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:80]}"
        if self._there[fixture]:
            raise NotOffered(f"model {name} is not served: {self._there[fixture]}")
        return name

    def path(self, fixture: str, action: str = "", version: str | None = None) -> str:
        """Path of a fixture's model, of one version of it, or of an action on either."""
        middle = "" if version is None else f"/versions/{version}"
        return f"/v2/models/{self.model(fixture)}{middle}{f'/{action}' if action else ''}"

    def post(self, fixture: str, body: bytes | str, **headers: str) -> httpx.Response:
        """An inference request of any bytes; `_` in a header's name stands for `-`."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        content = body.encode() if isinstance(body, str) else body
        return self.client.post(self.path(fixture, "infer"), content=content, headers={**JSON, **named})

    def infer(self, fixture: str, *inputs: dict[str, Any], version: str | None = None, **more: Any) -> httpx.Response:
        """A JSON inference request; `more` goes into its top level."""
        text = json.dumps({**more, "inputs": list(inputs)})
        return self.client.post(self.path(fixture, "infer", version), content=text, headers=JSON)

    def binary(
        self, fixture: str, inputs: list[dict[str, Any]], blobs: list[bytes], json_size: int | None = None, **more: Any
    ) -> httpx.Response:
        """A request with binary data after its JSON; `json_size` overrides the true size in the header."""
        head = json.dumps({**more, "inputs": inputs}).encode()
        size = len(head) if json_size is None else json_size
        headers = {"Content-Type": "application/octet-stream", HEADER: str(size)}
        return self.client.post(self.path(fixture, "infer"), content=head + b"".join(blobs), headers=headers)

    def offers_binary(self) -> None:
        """Raises NotOffered when the server neither announces nor understands binary tensors."""
        if self._binary is None:
            answer = self.binary("vector", *binary_inputs(("x", "FP32", np.ones(2, np.float32))))
            announced = "binary_tensor_data" in self.extensions()
            self._binary = "" if announced or answer.status_code == 200 else f"{answer.status_code} {answer.text[:80]}"
        if self._binary:
            raise NotOffered(f"binary tensor data is not announced, and a request with it got {self._binary}")

    def extensions(self) -> list[str]:
        """Extensions the server announces."""
        found = self.get("/v2").json().get("extensions", [])
        return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def binary_inputs(*tensors: tuple[str, str, np.ndarray]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Inputs and their binary data from (name, datatype, array)."""
    blobs = [pack(datatype, array) for _, datatype, array in tensors]
    inputs = [
        {"name": name, "shape": list(array.shape), "datatype": datatype, "parameters": {"binary_data_size": len(blob)}}
        for (name, datatype, array), blob in zip(tensors, blobs, strict=True)
    ]
    return inputs, blobs


def document(answer: Any) -> Any:
    """The strict JSON of a 200. Raises Failed."""
    text = answer.text
    expect(answer.status_code == 200, f"{answer.status_code} {text[:100]}")
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise Failed(f"the body is no JSON ({error}): {text[:60]}") from None


def outputs(answer: httpx.Response) -> dict[str, np.ndarray]:
    """Output tensors of a 200 by name, from JSON and from binary data. Raises Failed."""
    if HEADER not in answer.headers:
        items = document(answer)["outputs"]
        return {item["name"]: from_json(item) for item in items}
    return {name: array for name, (_, array) in binary_outputs(answer).items()}


def binary_outputs(answer: httpx.Response) -> dict[str, tuple[dict[str, Any], np.ndarray]]:
    """Outputs of an answer with binary data: (item, tensor) by name. Raises Failed when sizes are off."""
    expect(answer.status_code == 200, f"{answer.status_code} {answer.text[:100]}")
    expect(HEADER in answer.headers, f"no {HEADER} in the answer")
    size, content = int(answer.headers[HEADER]), answer.content
    found, at = {}, size
    for item in json.loads(content[:size])["outputs"]:
        length = item.get("parameters", {}).get("binary_data_size")
        if length is None:
            found[item["name"]] = (item, from_json(item))
            continue
        expect("data" not in item, f"output {item['name']} has both data and binary_data_size")
        found[item["name"]] = (item, unpack(item["datatype"], item["shape"], content[at : at + length]))
        at += length
    expect(at == len(content), f"the outputs take {at - size} bytes of the {len(content) - size} after the JSON")
    return found


def refused(answer: Any, statuses: tuple[int, ...] = ()) -> str:
    """Evidence that a request was refused with a 4xx (of `statuses`, if given) and the error object."""
    status, text = answer.status_code, answer.text
    expect(status != 200, f"200, accepted: {text[:100]}")
    expect(400 <= status < 500, f"{status} {text[:100]}")
    expect(not statuses or status in statuses, f"{status}, not {' or '.join(map(str, statuses))}: {text[:80]}")
    try:
        body = json.loads(text)
    except ValueError:
        raise Failed(f"{status}, but the body is no JSON: {text[:60]!r}") from None
    expect(isinstance(body, dict) and isinstance(body.get("error"), str), f"{status}, but no error text: {text[:80]}")
    expect(body["error"], f"{status} with an empty error text")
    return f"{status} {body['error']}"
