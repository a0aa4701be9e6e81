"""Every peer by its name."""

from __future__ import annotations

from bench.serving_peers.peer import Peer

PEERS: dict[str, Peer] = {}
