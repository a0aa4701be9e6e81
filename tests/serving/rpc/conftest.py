"""A server with gRPC, shared by the tests of one file, and a client for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving import kinds, models
from tests.serving.conftest import Server
from tests.serving.grpc_client import Client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    models.write_all(folder)
    (folder / "half.onnx").write_bytes(kinds.bfloat16().SerializeToString())
    made = Server("--models", str(folder), "--max-body-mb", "4", "--grpc-port", "0")
    yield made.wait_ready()
    made.stop()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    made = Client(server.grpc)
    yield made
    made.close()
