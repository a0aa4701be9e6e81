"""docker-compose.yml: valid, complete, and setting no variable that nobody reads.

`compose-spec.json` is schema/compose-spec.json of github.com/compose-spec/compose-spec at commit
170098ba07d9f53c383a41bfd4c5166b0a4529a6 (Apache-2.0), unchanged.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import mlflow
import pytest
import yaml
from honcho.environ import parse_procfile

from slipway.paths import REPOSITORY

COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}
PROCESSES = parse_procfile((REPOSITORY / "Procfile").read_text()).processes
# boto3 and Django read these; they are no variables of ours.
OF_LIBRARIES = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def read_by_us() -> set[str]:
    """Every variable that settings, paths or the inference server name."""
    root = REPOSITORY / "platform" / "slipway"
    files = [root / "environment.py", root / "paths.py", *(REPOSITORY / "serving").rglob("*.py")]
    name = re.compile(r"[\"'](SLIPWAY_[A-Z_]+|DATABASE_URL|REDIS_URL)[\"']")
    return {found for file in files for found in name.findall(file.read_text())}


def read_by_mlflow() -> set[str]:
    package = Path(mlflow.__file__).parent
    files = [package / "cli" / "__init__.py", package / "utils" / "cli_args.py", package / "environment_variables.py"]
    return {found for file in files for found in re.findall(r"[\"'](MLFLOW_[A-Z0-9_]+)[\"']", file.read_text())}


def test_compose_file_is_valid_when_checked_against_the_schema():
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def test_compose_runs_every_process_of_the_procfile_when_listed():
    assert PROCESSES.keys() <= OURS.keys()


@pytest.mark.parametrize("name", ["worker", "control"])
def test_compose_worker_takes_the_queues_of_the_procfile_when_started(name):
    def queues(command: str) -> str:
        return re.search(r"--queues (\S+)", command).group(1)

    assert queues(OURS[name]["command"]) == queues(PROCESSES[name])


@pytest.mark.parametrize("name", OURS)
def test_compose_variable_is_read_by_someone_when_set(name):
    known = read_by_mlflow() | OF_LIBRARIES if name == "mlflow" else read_by_us()
    assert set(OURS[name].get("environment", {})) - known == set()


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_compose_secret_has_no_default_when_set(name):
    for variable, value in COMPOSE["services"][name].get("environment", {}).items():
        if re.search("PASSWORD|SECRET|TOKEN|AUTH", variable):
            assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), variable
        assert not re.search(r"://[^/$]*:[^$/@]+@", str(value)), f"{variable} holds a password"


@pytest.mark.parametrize("name", OURS)
def test_compose_service_gives_up_rights_when_started(name):
    assert OURS[name]["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in OURS[name]["security_opt"]
    assert "privileged" not in OURS[name]


def test_serving_waits_for_nothing_when_started_by_compose():
    assert "depends_on" not in OURS["serving"]


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_compose_dependency_can_be_met_when_waited_for(name):
    waits = {
        "service_healthy": lambda service: "healthcheck" in service,
        "service_completed_successfully": lambda service: service.get("restart", "no") == "no",
    }
    for other, how in COMPOSE["services"][name].get("depends_on", {}).items():
        assert waits[how["condition"]](COMPOSE["services"][other]), f"{name} waits for {other}"


def test_dockerfile_runs_as_a_normal_user_when_built():
    users = re.findall(r"^USER (\S+)", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert users == ["slipway"]


def test_dockerfile_locks_exist_when_built():
    named = re.findall(r"/locks/(\S+\.txt)", (REPOSITORY / "Dockerfile").read_text())
    assert [name for name in named if not (REPOSITORY / "locks" / name).exists()] == []


def test_docker_context_holds_the_rooms_and_no_state_when_built():
    kept = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    rooms = {"platform", "engine", "serving", "registry", "deployments", "monitoring", "workers", "locks"}
    assert rooms | {"templates", "static", "manage.py", "pyproject.toml", "README.md"} <= kept
    assert not {".git", ".slipway", ".venv", "tests"} & kept
