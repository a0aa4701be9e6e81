"""gRPC over time: tokens and routing, changes under load, processes that come and go."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.serving import models
from tests.serving.conftest import Server, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.grpc_client import Client, packed, request, rows

Serve = Callable[..., Server]


def follow(serve: Serve, control: ControlPlane, home: Path, processes: int = 1, *more: str) -> Server:
    return serve("--home", str(home), "--control-url", control.url, "--grpc-port", "0", *more, processes=processes)


class Load:
    """Threads that keep asking, on kept and on new connections, and note every answer."""

    def __init__(self, address: str, threads: int = 4) -> None:
        self.answers: Counter[object] = Counter()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(address,)) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def _ask(self, address: str) -> None:
        while not self.stopping.is_set():
            client = Client(address)
            for _ in range(200):
                if self.stopping.is_set():
                    break
                try:
                    # Over a connection that is refused in the making; never over a call that was taken.
                    answer = client.infer(rows("m"), wait_for_ready=True)
                    key: object = float(np.frombuffer(answer.raw_output_contents[0], np.float32)[0])
                except grpc.RpcError as error:
                    key = f"{error.code()} {error.details()}"
                self.answers[key] += 1
            client.close()

    def stop(self) -> Counter[object]:
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        return self.answers


def test_calls_never_fail_when_the_desired_state_changes_100_times(
    serve: Serve, control: ControlPlane, tmp_path: Path
) -> None:
    data = [control.add(models.constant(n)) for n in range(4)]
    control.publish(endpoint("m", deployment("0", data[0])))
    server = follow(serve, control, tmp_path, 2).wait_ready("m")
    wait_until(lambda: control.observed(1, 2))
    load = Load(server.grpc)
    for n in range(1, 101):
        generation = control.publish(endpoint("m", deployment(str(n), data[n % 4])))
        wait_until(lambda g=generation: control.observed(g, 2))
    answers = load.stop()
    assert set(answers) == {0.0, 1.0, 2.0, 3.0}, answers


def test_tokens_quotas_routing_and_ids_go_by_metadata(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    one, two = control.add(models.constant(1)), control.add(models.constant(2))
    limited = endpoint("limited", deployment("q", one), tokens=["few"])
    limited["tokens"] = [{"sha256": limited["tokens"][0], "rate": 0.01, "burst": 2}]
    control.publish(
        endpoint("m", deployment("a", one, 50), deployment("b", two, 50), tokens=["secret"]),
        endpoint("open", deployment("c", one)),
        limited,
    )
    server = follow(serve, control, tmp_path)
    client = Client(server.grpc)
    wait_until(lambda: server.client.get("/v2/models/open/ready").status_code == 200)
    assert client.refused(rows("m")) == ("UNAUTHENTICATED", "this model needs a bearer token")
    assert client.refused(rows("m"), (("authorization", "Bearer wrong"),))[0] == "PERMISSION_DENIED"
    assert [m.name for m in client.call("RepositoryIndex").models] == ["open"]
    assert {s.name for s in client.call("ModelStatistics").model_stats} == {"open"}
    good = (("authorization", "Bearer secret"),)
    assert client.call("ModelReady", good, name="m").ready
    picked = {
        key: {client.told(rows("m"), (*good, ("x-slipway-key", key)))["x-slipway-deployment"] for _ in range(5)}
        for key in map(str, range(20))
    }
    assert all(len(found) == 1 for found in picked.values()) and len(set.union(*picked.values())) == 2
    assert client.told(rows("open"), (("x-request-id", "mine"),))["x-request-id"] == "mine"
    assert client.told(rows("open"))["x-request-id"]
    few = (("authorization", "Bearer few"),)
    client.infer(rows("limited"), few)
    client.infer(rows("limited"), few)
    call = client.start(rows("limited"), few)
    assert call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "quota" in call.details()
    assert int(dict(call.trailing_metadata())["retry-after"]) >= 1
    (answer,) = client.stream(iter([rows("m")]))
    assert answer.error_message == "this model needs a bearer token"


class Seen:
    """Which processes answer on the gRPC port: new connections, and who holds their other ends."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.clients: list[Client] = []

    def all(self) -> bool:
        self.clients.append(Client(self.server.grpc))
        with contextlib.suppress(grpc.RpcError):
            self.clients[-1].call("ServerLive")
        port = int(self.server.grpc.rsplit(":", 1)[1])
        text = "".join(Path(f"/proc/net/{kind}").read_text() for kind in ("tcp", "tcp6"))
        lines = [line.split() for line in text.splitlines() if ":" in line.split()[1]]
        inodes = {f"socket:[{w[9]}]" for w in lines if w[3] == "01" and int(w[1].split(":")[1], 16) == port}
        children = set(self.server.children())
        with contextlib.suppress(OSError):
            holders = {
                pid for pid in children for fd in Path(f"/proc/{pid}/fd").iterdir()
                if fd.is_symlink() and os.readlink(fd) in inodes
            }  # fmt: skip
            return len(children) == self.server.processes and holders == children
        return False


def test_every_process_answers_on_the_one_port(serve: Serve, model_folder: Path) -> None:
    server = serve("--models", str(model_folder), "--grpc-port", "0", processes=2).wait_ready("tiny")
    wait_until(Seen(server).all)


def test_calls_under_way_are_answered_when_the_server_is_told_to_stop(serve: Serve, model_folder: Path) -> None:
    server = serve("--models", str(model_folder), "--grpc-port", "0", processes=2).wait_ready("slow")
    clients = [Client(server.grpc) for _ in range(6)]
    for client in clients:
        client.infer(rows())
    streams = [client.stream(iter([rows(id="s")])) for client in clients[:2]]
    calls = [client.start(rows("slow")) for client in clients]
    wait_until(lambda: "slipway_inflight_requests" in server.client.get("/metrics").text)
    server.process.send_signal(signal.SIGTERM)
    assert all(call.result().outputs for call in calls)
    for stream in streams:
        assert next(stream).infer_response.id == "s"
    assert server.process.wait(20) == 0


def test_open_streams_do_not_hold_up_the_end(serve: Serve, model_folder: Path) -> None:
    server = serve("--models", str(model_folder), "--grpc-port", "0").wait_ready("tiny")
    done = threading.Event()

    def talk():
        yield rows(id="first")
        done.wait(30)

    stream = Client(server.grpc).stream(talk())
    assert next(stream).infer_response.id == "first"
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(6) == 0
    assert stream.code() == grpc.StatusCode.UNAVAILABLE
    done.set()


def test_calls_never_fail_when_processes_are_replaced(serve: Serve, control: ControlPlane, tmp_path: Path) -> None:
    control.publish(endpoint("m", deployment("0", control.add(models.constant(0)))))
    server = follow(serve, control, tmp_path, 2).wait_ready("m")
    wait_until(Seen(server).all)
    load = Load(server.grpc)
    for _ in range(2):
        for pid in server.children():
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda p=pid: p not in server.children())
            wait_until(Seen(server).all)
    answers = load.stop()
    assert set(answers) == {0.0}, answers


@pytest.mark.parametrize("raw", [True, False])
def test_calls_are_forwarded_when_another_server_answers(
    serve: Serve, control: ControlPlane, model_folder: Path, tmp_path: Path, raw: bool
) -> None:
    other = serve("--models", str(model_folder)).wait_ready("tiny")
    names = ("tiny", "id-bytes", "lookup", "id-fp16")
    control.publish(*(
        endpoint(f"my-{name}", {
            **deployment(f"up-{name}", b"elsewhere"),
            "upstream": {"url": other.url, "model": name, "version": None, "timeout_s": 5},
        })
        for name in names
    ))  # fmt: skip
    server = follow(serve, control, tmp_path).wait_ready("my-tiny")
    client, asked = Client(server.grpc), rows("my-tiny", 2, raw=raw, id="r", outputs=[{"name": "scores"}])
    answer = client.infer(asked)
    assert (answer.id, answer.model_name, answer.model_version) == ("r", "my-tiny", "up-tiny")
    own = other.infer("tiny", models.rows(2)).json()["outputs"][1]["data"]
    assert np.allclose(np.frombuffer(answer.raw_output_contents[0], np.float32), own, atol=1e-6)
    asked.outputs[0].parameters["classification"].int64_param = 1
    assert client.infer(asked).outputs[0].datatype == "BYTES"
    texts = np.array([["a", "漢"]], dtype=object)
    assert client.infer(request("my-id-bytes", ("x", "BYTES", texts), raw=raw)).raw_output_contents[0] == packed(texts)
    status, text = client.refused(request("my-tiny", ("x", "FP64", np.zeros((1, 4))), raw=raw))
    assert status == "INVALID_ARGUMENT" and "datatype" in text
    status, _ = client.refused(request("my-lookup", ("i", "INT64", np.array([7])), raw=raw))
    assert status == "UNAVAILABLE"
    large = request("my-id-fp16", ("x", "FP16", np.ones((300, 300), np.float16)))
    assert client.infer(large).raw_output_contents[0] == np.ones((300, 300), np.float16).tobytes()
    other.stop()
    assert client.refused(asked)[0] == "UNAVAILABLE"


def test_large_messages_at_once_are_bounded(serve: Serve, model_folder: Path) -> None:
    server = serve("--models", str(model_folder), "--grpc-port", "0", "--max-body-mb", "1").wait_ready("slow")
    clients = [Client(server.grpc) for _ in range(8)]
    array = np.zeros((60_000, 4), np.float32)  # 960 kB
    calls = [client.start(request("slow", ("x", "FP32", array))) for client in clients for _ in range(2)]
    found = Counter(call.code() for call in calls)
    assert set(found) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert found[grpc.StatusCode.OK] >= 4 and found[grpc.StatusCode.UNAVAILABLE] >= 1
    assert clients[0].infer(rows()).outputs
