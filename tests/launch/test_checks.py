"""What must hold before anything starts."""

from __future__ import annotations

import os
import shutil
import socket
from collections import namedtuple

import pytest

from slipway import paths
from slipway.launch import checks
from slipway.launch.errors import LaunchError

PORTS = ("SLIPWAY_PORT", "SLIPWAY_SERVING_PORT", "SLIPWAY_GRPC_PORT")


@pytest.fixture
def ports(monkeypatch):
    """Three free ports in the environment."""
    with socket.socket() as a, socket.socket() as b, socket.socket() as c:
        for name, probe in zip(PORTS, (a, b, c), strict=True):
            probe.bind(("127.0.0.1", 0))
            monkeypatch.setenv(name, str(probe.getsockname()[1]))
    return PORTS


@pytest.mark.parametrize("name", PORTS)
def test_start_is_refused_with_the_variable_when_its_port_is_busy(name, ports):
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(os.environ[name])))
        other.listen()
        with pytest.raises(LaunchError, match=rf"^Port {os.environ[name]} is in use .*{name}.*\.$"):
            checks.free_ports("127.0.0.1")


def test_ports_are_accepted_when_free(ports):
    checks.free_ports("127.0.0.1")


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "http", "80 80", "٣٤٥"])
def test_port_is_refused_when_not_a_port(text, ports, monkeypatch):
    monkeypatch.setenv("SLIPWAY_PORT", text)
    if text == "":
        assert paths.port() == 8000
        return
    with pytest.raises(LaunchError, match=r"SLIPWAY_PORT is .* from 1 to 65535"):
        checks.free_ports("127.0.0.1")


def test_start_is_refused_when_two_ports_are_equal(ports, monkeypatch):
    monkeypatch.setenv("SLIPWAY_GRPC_PORT", os.environ["SLIPWAY_PORT"])
    with pytest.raises(LaunchError, match="SLIPWAY_PORT and SLIPWAY_GRPC_PORT are both"):
        checks.free_ports("127.0.0.1")


def test_start_is_refused_when_host_is_not_of_this_machine(ports):
    with pytest.raises(LaunchError, match=r"SLIPWAY_HOST is 192\.0\.2\.1"):
        checks.free_ports("192.0.2.1")


def test_second_start_is_refused_when_the_lock_is_held(tmp_path):
    held = checks.only_one(tmp_path)
    with pytest.raises(LaunchError, match="already runs in"):
        checks.only_one(tmp_path)
    os.close(held)
    os.close(checks.only_one(tmp_path))


def test_start_is_refused_when_the_disk_is_full(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 4096, 4096)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(LaunchError, match=r"is full: 0 MB are free"):
        checks.disk_space(tmp_path)


def test_home_is_refused_when_it_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "file"))
    with pytest.raises(LaunchError, match="that is not a folder"):
        checks.home_folder()


def test_home_is_private_when_made(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "new"))
    assert checks.home_folder().stat().st_mode & 0o777 == 0o700


def test_socket_folder_stays_short_when_home_is_deep(tmp_path):
    deep = tmp_path / ("d" * 200)
    longest = paths.sockets(deep).with_name(paths.sockets(deep).name + "-pg") / ".s.PGSQL.5432.lock"
    assert len(os.fsencode(longest)) <= 107
