"""How each peer is started over one of the bench's models: as many workers as cores, one thread a session."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.serving_parts.models import sample
from bench.serving_parts.processes import BenchError, Child, Running, clean_env, free_port
from bench.serving_parts.requests import artifact, plain_json, v2_binary, v2_json
from bench.serving_parts.requests import expected as expected_of
from bench.serving_peers.peer import APPS, Start

START_S = 120.0


def _model_file(start: Start, folder: Path | None = None) -> Path:
    folder = folder or start.folder
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.onnx"
    file.write_bytes(artifact(start.model))
    return file


def _env(start: Start, **more: str) -> dict[str, str]:
    """The peer's programs come first, and its leavings go into the bench's folder."""
    env = clean_env(**more)
    scratch = start.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return {**env, "PATH": f"{start.home / 'bin'}:{env.get('PATH', '')}", "HOME": str(scratch), "TMPDIR": str(scratch)}


@contextmanager
def litserve(start: Start) -> Iterator[Running]:
    """Rows under `data`, at /predict."""
    port = free_port()
    command = [start.python, str(APPS / "litserve_app.py"), str(_model_file(start)), str(port), str(start.processes)]
    with Child(command, start.log, env=_env(start), cwd=start.folder) as child:
        yield Running(child, port, {"json": plain_json(start.model, "/predict", "data")})


@contextmanager
def bentoml(start: Start) -> Iterator[Running]:
    """Rows under the argument's name, at /predict."""
    port = free_port()
    env = _env(
        start,
        BENCH_MODEL=str(_model_file(start)),
        BENCH_WORKERS=str(start.processes),
        BENTOML_HOME=str(start.folder / "bentoml"),
        BENTOML_DO_NOT_TRACK="True",
    )
    command = [start.python, "-m", "bentoml", "serve", "bentoml_app:Classifier", "--working-dir", str(APPS)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with Child(command, start.log, env=env, cwd=start.folder) as child:
        yield Running(child, port, {"json": plain_json(start.model, "/predict", "x")})


@contextmanager
def mlserver(start: Start) -> Iterator[Running]:
    """Open Inference Protocol in JSON; its binary extension is not for REST."""
    port = free_port(3)
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "parallel_workers": start.processes,
        "debug": False,
    }
    model = {
        "name": start.model,
        "implementation": "mlserver_app.OnnxModel",
        "parameters": {"uri": str(_model_file(start))},
    }
    (start.folder / "settings.json").write_text(json.dumps(settings))
    (start.folder / "model-settings.json").write_text(json.dumps(model))
    command = [str(start.home / "bin" / "mlserver"), "start", str(start.folder)]
    with Child(command, start.log, env=_env(start, PYTHONPATH=str(APPS)), cwd=start.folder) as child:
        yield Running(child, port, {"json": v2_json(start.model, f"/v2/models/{start.model}/infer")})


@contextmanager
def mlflow(start: Start) -> Iterator[Running]:
    """A tensor by its input's name, at /invocations."""
    port = free_port()
    env = _env(start, MLFLOW_DISABLE_TELEMETRY="true")
    saved = start.folder / "saved"
    command = [start.python, str(APPS / "mlflow_app.py"), str(_model_file(start)), str(saved)]
    done = subprocess.run(command, env=env, cwd=start.folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"mlflow could not save the model: {done.stderr[-500:]}")
    command = [start.python, "-m", "mlflow", "models", "serve", "-m", str(saved), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", str(start.processes)]
    with Child(command, start.log, env=env, cwd=start.folder) as child:
        plain = plain_json(start.model, "/invocations", "inputs")
        yield Running(child, port, {"json": plain})


@contextmanager
def triton(start: Start) -> Iterator[Running]:
    """The server itself, as the wheel ships it, over its Python backend; both ways of its own protocol."""
    port = free_port()
    server = next(start.home.glob("lib/python3*/site-packages/pytriton/tritonserver"), None)
    if server is None:
        raise BenchError("the wheel of pytriton holds no server")
    x = sample(start.model)
    place = start.folder / "repository" / start.model
    _model_file(start, place / "1")
    shutil.copy(APPS / "triton_app.py", place / "1" / "model.py")
    # The stub of this Python lies elsewhere in the wheel than its backend looks for it.
    backend = start.folder / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend)
    shutil.copy(server / "python_backend_stubs" / "3.11" / "triton_python_backend_stub", backend)
    answers = expected_of(start.model).size
    (place / "config.pbtxt").write_text(
        f'name: "{start.model}"\nbackend: "python"\nmax_batch_size: 0\n'
        f'input [{{ name: "x", data_type: TYPE_FP32, dims: [{", ".join(["-1", *map(str, x.shape[1:])])}] }}]\n'
        f'output [{{ name: "probabilities", data_type: TYPE_FP32, dims: [-1, {answers}] }}]\n'
        f"instance_group [{{ count: {start.processes}, kind: KIND_CPU }}]\n"
    )
    command = [str(server / "bin" / "tritonserver"), f"--model-repository={place.parent}"]
    command += [f"--backend-directory={backend.parent}", "--http-address=127.0.0.1", f"--http-port={port}"]
    command += ["--allow-grpc=false", "--allow-metrics=false", "--log-info=false"]
    packages = server.parent.parent
    libraries = f"{server / 'external_libs'}:{packages / 'nvidia_pytriton.libs'}"
    env = _env(start, LD_LIBRARY_PATH=libraries, PYTHONPATH=str(packages))
    with Child(command, start.log, env=env, cwd=start.folder) as child:
        path = f"/v2/models/{start.model}/infer"
        yield Running(child, port, {"json": v2_json(start.model, path), "binary": v2_binary(start.model, path)})


@contextmanager
def torchserve(start: Start) -> Iterator[Running]:
    """Rows under `data`; needs Java 17. The archive is a plain folder, which it takes as well as a packed one."""
    java = shutil.which("java")
    if java is None:
        raise BenchError("java is missing (apt-get install openjdk-17-jre-headless)")
    port = free_port(3)
    store = start.folder / "store"
    place = store / start.model
    _model_file(start, place)
    shutil.copy(APPS / "torchserve_app.py", place)
    (place / "MAR-INF").mkdir()
    model = {"modelName": start.model, "handler": "torchserve_app.py", "modelVersion": "1.0"}
    manifest = {"createdOn": "", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    (place / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    config = start.folder / "config.properties"
    config.write_text(
        f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{port + 1}\n"
        f"metrics_address=http://127.0.0.1:{port + 2}\nenable_grpc=false\ndisable_token_authorization=true\n"
        f"default_workers_per_model={start.processes}\nload_models=all\nmodel_store={store}\n"
        "job_queue_size=1000\ndisable_system_metrics=true\nenable_envvars_config=false\n"
    )
    jar = next(start.home.glob("lib/python3*/site-packages/ts/frontend/model-server.jar"), None)
    if jar is None:
        raise BenchError("the wheel of torchserve holds no server")
    command = [str(start.home / "bin" / "torchserve"), "--foreground", "--ts-config", str(config)]
    command += ["--model-store", str(store), "--models", "all", "--disable-token-auth", "--ncs"]
    with Child(command, start.log, env=_env(start), cwd=start.folder) as child:
        yield Running(child, port, {"json": plain_json(start.model, f"/predictions/{start.model}", "data")})
