"""Every peer by its name, with the versions it is measured at."""

from __future__ import annotations

from bench.serving_peers import servers
from bench.serving_peers.peer import Peer

RUNTIME = "onnxruntime==1.32.0"

PEERS = {
    # With uvloop 0.23 its workers end as soon as they start.
    "mlserver": Peer(("mlserver==1.7.1", "uvloop==0.21.0", RUNTIME), servers.mlserver),
    "litserve": Peer(("litserve==0.2.19", RUNTIME), servers.litserve),
    "bentoml": Peer(("bentoml==1.4.40", RUNTIME), servers.bentoml),
    # Without uvloop, asyncio leaves the sockets of several workers with Nagle on: 40 ms an answer.
    "mlflow": Peer(("mlflow==3.17.2", "onnx==1.23.2", "uvloop==0.23.0", "httptools==0.9.0", RUNTIME), servers.mlflow),
    # Its stub is linked against the system's libpython3.11.
    "triton": Peer(("nvidia-pytriton==0.7.0", RUNTIME), servers.triton, python="/usr/bin/python3"),
    # Needs Java 17 on the PATH, and imports yaml without saying so.
    "torchserve": Peer(("torchserve==0.12.0", "torch==2.13.0", "pyyaml==6.0.3", RUNTIME), servers.torchserve),
}
