"""The first step: an old Python and a failed installation each give one plain sentence."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys

import pytest

from slipway.launch.installer import clean_environment, package_environment, reason
from slipway.paths import REPOSITORY

BOOTSTRAP = REPOSITORY / "platform" / "slipway" / "launch" / "bootstrap.py"


def load():
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", BOOTSTRAP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("version", [(2, 7), (3, 6), (3, 10), (3, 14), (4, 0)])
def test_bootstrap_complains_in_one_sentence_when_python_does_not_fit(version, monkeypatch, capsys):
    bootstrap = load()
    monkeypatch.setattr(bootstrap.sys, "version_info", (*version, 1, "final", 0))
    assert bootstrap.main(["base"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ".".join(map(str, version)) in said


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_bootstrap_accepts_python_when_supported(version):
    assert load().complaint(version) == ""


def test_bootstrap_uses_only_old_syntax_when_parsed():
    tree = ast.parse(BOOTSTRAP.read_text(), feature_version=(3, 4))
    too_new = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Match)
    assert [node for node in ast.walk(tree) if isinstance(node, too_new)] == []
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert all(f.returns is None and not any(a.annotation for a in f.args.args) for f in functions)


def test_bootstrap_is_done_at_once_when_installed(tmp_path):
    # The real one, on the environment that runs this test, would install: only the argument check is tried.
    done = subprocess.run(
        [sys.executable, str(BOOTSTRAP), "everything"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (2, "slipway: install one of base, test, not 'everything'.\n")


@pytest.mark.parametrize(
    ("output", "word"),
    [
        ("error: failed to write: No space left on device (os error 28)", "disk is full"),
        ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied", "owner"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "mirror"),
        ("error: Failed to fetch: dns error: failed to lookup address information", "network"),
        ("ERROR: No matching distribution found for django==5.2.19", "lacks a package"),
        (
            "FileNotFoundError: Forced include not found: static\nhint: See above for details.",
            "Forced include",
        ),
    ],
)
def test_failed_install_gives_one_sentence_when_output_names_the_cause(output, word):
    sentence = reason(output)
    assert word in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize("home", ["", None, "/nonexistent/home"])
def test_install_environment_does_without_home_when_there_is_none(home, monkeypatch):
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    env = clean_environment()
    assert "HOME" not in env
    assert env["UV_NO_CACHE"] == env["PIP_NO_CACHE_DIR"] == "1"


def test_uv_gets_the_index_of_pip_when_only_pip_was_told(tmp_path, monkeypatch):
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://mirror.example/simple\nfind-links = /one /two\n")
    for name in [n for n in os.environ if n.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    from pathlib import Path

    found = package_environment(Path(sys.executable))
    assert found["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert found["UV_FIND_LINKS"] == "/one,/two"
