"""Only what a trusted key signed is served; what answers goes on answering."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.formats import signing
from engine.formats.signing import Recorded
from serving.options import OptionsError, parse_options
from tests.serving import models
from tests.serving.conftest import Server, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.models import rows

Serve = Callable[..., Server]
KEY, OTHER = (signing.private_key(signing.generate()) for _ in range(2))
ONE, TWO = models.constant(1), models.constant(2)


def sign(data: bytes, key: Any = KEY, **changes: Any) -> dict[str, Any]:
    facts = {"format": "onnx", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), **changes}
    return signing.sign(Recorded("p", "m", 1, file_name="model.onnx", **facts), key, dt.datetime.now(dt.UTC))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys.pem"
    file.write_bytes(signing.public_pem(KEY))
    return file


@pytest.fixture
def follow(serve: Serve, control: ControlPlane, tmp_path: Path, keys: Path) -> Callable[..., Server]:
    def start(*more: str, trust: bool = True, **env: str) -> Server:
        known = ["--trust-keys", str(keys)] if trust else []
        return serve("--home", str(tmp_path / "home"), "--control-url", control.url, *known, *more, env=env)

    return start


def value(server: Server, model: str = "m") -> float:
    answer = server.infer(model, rows())
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"][0]


def wrong(data: bytes) -> dict[str, tuple[Any, str]]:
    """{what is wrong: (signature, part of the reason)}"""
    good = sign(data)
    return {
        "none": (None, "not signed"),
        "empty": ({}, "not signed"),
        "no envelope": ("yes", "malformed"),
        "another key": (sign(data, OTHER), "not trusted here"),
        "another artifact": (sign(ONE), "another digest"),
        "another format": (sign(data, format="pmml"), "another format"),
        "another size": (sign(data, size=1), "another size"),
        "payload of another": ({**good, "payload": sign(ONE)["payload"]}, "is wrong"),
        "cut": ({**good, "signatures": [{**good["signatures"][0], "sig": "AAAA"}]}, "is wrong"),
    }


def test_old_version_keeps_answering_when_the_new_signature_does_not_hold(
    follow: Callable[..., Server], control: ControlPlane
) -> None:
    for data in (ONE, TWO):
        control.add(data)
    control.publish(endpoint("m", deployment("1", ONE, signature=sign(ONE))))
    server = follow().wait_ready("m")
    for number, (name, (signature, reason)) in enumerate(wrong(TWO).items()):
        ident = f"bad-{number}"
        control.publish(endpoint("m", deployment(ident, TWO, signature=signature)))
        wait_until(lambda i=ident: control.state(i).get("state") == "failed", what=name)
        said = control.state(ident)["reason"]
        assert reason in said and hashlib.sha256(TWO).hexdigest()[:12] in said, (name, said)
        assert value(server) == 1.0, name
        assert control.state("1")["state"] == "ready", name
    # What is refused is not even fetched.
    assert control.downloads == [hashlib.sha256(ONE).hexdigest()]
    control.publish(endpoint("m", deployment("2", TWO, signature=sign(TWO))))
    wait_until(lambda: value(server) == 2.0)


def test_loaded_bytes_are_refused_when_they_come_again_without_a_signature(
    follow: Callable[..., Server], control: ControlPlane
) -> None:
    control.add(ONE)
    control.publish(endpoint("m", deployment("1", ONE, signature=sign(ONE))))
    server = follow().wait_ready("m")
    control.publish(
        endpoint("m", deployment("1", ONE, signature=sign(ONE))), endpoint("n", deployment("2", ONE, version="9"))
    )
    wait_until(lambda: control.state("2").get("state") == "failed")
    assert value(server) == 1.0 and server.infer("n", rows()).status_code == 503


def test_tampered_bytes_are_refused_when_their_signature_is_right(
    follow: Callable[..., Server], control: ControlPlane
) -> None:
    control.add(ONE)
    control.publish(endpoint("m", deployment("1", ONE, signature=sign(ONE))))
    server = follow().wait_ready("m")
    new = deployment("2", TWO, signature=sign(TWO))
    control.artifacts[new["artifact"]["sha256"]] = TWO[:-1] + bytes([TWO[-1] ^ 1])
    control.publish(endpoint("m", new))
    wait_until(lambda: "corrupt" in control.state("2").get("reason", ""))
    assert value(server) == 1.0


def test_signature_is_verified_from_disk_when_the_control_plane_is_away(
    follow: Callable[..., Server], control: ControlPlane, tmp_path: Path, keys: Path
) -> None:
    state = tmp_path / "home" / "state.json"
    control.add(ONE)
    control.publish(endpoint("m", deployment("1", ONE, signature=sign(ONE))))
    server = follow().wait_ready("m")
    # What is kept after a refusal is what answers, with its signature.
    control.publish(endpoint("m", deployment("2", TWO)))
    wait_until(lambda: control.state("2").get("state") == "failed")
    wait_until(lambda: json.loads(state.read_text())["generation"] == 2)
    server.stop()
    control.stop()
    server = follow().wait_ready("m")
    assert value(server) == 1.0
    server.stop()
    # Somebody puts other bytes under that name in the folder: neither their digest nor the signature fits.
    saved = json.loads(state.read_text())
    artifact = saved["endpoints"][0]["deployments"][0]["artifact"]
    assert artifact["signature"]["signatures"]
    digest = hashlib.sha256(TWO).hexdigest()
    (tmp_path / "home" / "artifacts" / digest).write_bytes(TWO)
    state.write_text(json.dumps(saved).replace(artifact["sha256"], digest).replace(f": {len(ONE)}", f": {len(TWO)}"))
    server = follow()
    wait_until(lambda: "another digest" in "".join(server.stderr))
    wait_until(lambda s=server: s.infer("m", rows()).status_code in (404, 503))
    server.stop()
    # And without its signature the right one is not served either.
    del artifact["signature"]
    state.write_text(json.dumps(saved))
    server = follow()
    wait_until(lambda: "not signed" in "".join(server.stderr))
    wait_until(lambda s=server: s.infer("m", rows()).status_code in (404, 503))


def test_keys_count_at_once_when_they_rotate(follow: Callable[..., Server], control: ControlPlane, keys: Path) -> None:
    for data in (ONE, TWO):
        control.add(data)
    control.publish(endpoint("m", deployment("1", ONE, signature=sign(ONE))))
    server = follow().wait_ready("m")
    keys.write_bytes(signing.public_pem(KEY) + signing.public_pem(OTHER))
    control.publish(endpoint("m", deployment("2", TWO, signature=sign(TWO, OTHER))))
    wait_until(lambda: value(server) == 2.0)
    keys.write_bytes(signing.public_pem(OTHER))
    control.publish(endpoint("m", deployment("3", ONE, signature=sign(ONE))))
    wait_until(lambda: "not trusted" in control.state("3").get("reason", ""))
    assert value(server) == 2.0
    # Signed anew by the key that is left: the same deployment, the same bytes.
    control.publish(endpoint("m", deployment("3", ONE, signature=sign(ONE, OTHER))))
    wait_until(lambda: value(server) == 1.0)


@pytest.mark.parametrize("content", [None, b"", b"no key"])
def test_nothing_is_served_until_the_keys_are_there_when_their_file_is_not(
    content: bytes | None, follow: Callable[..., Server], control: ControlPlane, keys: Path
) -> None:
    good = keys.read_bytes()
    keys.unlink() if content is None else keys.write_bytes(content)
    control.add(ONE)
    control.publish(endpoint("m", deployment("1", ONE, signature=sign(ONE))))
    server = follow()
    wait_until(lambda: "file of trusted keys" in control.state("1").get("reason", ""))
    assert str(keys) not in control.state("1")["reason"]
    keys.write_bytes(good)
    server.wait_ready("m")


def test_variable_does_what_the_flag_does_when_set(
    follow: Callable[..., Server], control: ControlPlane, keys: Path
) -> None:
    control.add(ONE)
    control.publish(endpoint("m", deployment("1", ONE)))
    follow(trust=False, SLIPWAY_TRUST_KEYS=str(keys))
    wait_until(lambda: "not signed" in control.state("1").get("reason", ""))


@pytest.mark.parametrize("signature", [None, {}, "yes", 5, {"payload": 1}])
def test_signature_is_not_looked_at_when_no_keys_are_given(
    signature: Any, follow: Callable[..., Server], control: ControlPlane
) -> None:
    control.add(ONE)
    control.publish(endpoint("m", deployment("1", ONE, signature=signature)))
    assert value(follow(trust=False).wait_ready("m")) == 1.0


def test_folder_of_models_is_refused_when_keys_are_given(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="no signatures"):
        parse_options(["--models", str(tmp_path), "--trust-keys", "x"], {})
    # A variable that a shell happens to have does not stand in the way of a folder named by hand.
    assert parse_options(["--models", str(tmp_path)], {"SLIPWAY_TRUST_KEYS": "x"}).trust_keys is None
    assert parse_options(["--home", str(tmp_path)], {"SLIPWAY_TRUST_KEYS": ""}).trust_keys is None
