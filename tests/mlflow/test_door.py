"""Who gets through to MLflow, and what does not."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from tests.mlflow.stack import Stack

SEARCH = "/mlflow/api/2.0/mlflow/experiments/search"
CREATE = "/mlflow/api/2.0/mlflow/experiments/create"


def search(stack: Stack, **more: Any) -> httpx.Response:
    return httpx.post(stack.url + SEARCH, json={"max_results": 5}, **more)


def create(stack: Stack, name: str, **more: Any) -> httpx.Response:
    return httpx.post(stack.url + CREATE, json={"name": name}, **more)


def raw(stack: Stack, request: str) -> str:
    """The status line that an exact request text is answered with."""
    host, _, port = stack.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode())
        return connection.recv(4096).decode().splitlines()[0]


@pytest.mark.parametrize(
    ("token", "reads", "writes"),
    [
        ("developer", 200, 200),
        ("root", 200, 200),
        ("viewer", 200, 403),
        ("read", 200, 403),
        ("nobody", 403, 403),
        ("expired", 401, 401),
    ],
)
def test_role_and_scope_decide_when_a_token_is_sent(stack: Stack, token: str, reads: int, writes: int) -> None:
    assert search(stack, headers=stack.bearer(token)).status_code == reads
    answer = create(stack, f"by-{token}", headers=stack.bearer(token))
    assert answer.status_code == writes
    if writes != 200:
        assert answer.json()["error_code"] in {"PERMISSION_DENIED", "UNAUTHENTICATED"}


def test_basic_password_is_taken_as_token_when_a_client_sends_one(stack: Stack) -> None:
    assert search(stack, auth=("anyone", stack.tokens["developer"])).status_code == 200
    assert search(stack, auth=("developer", "pw")).status_code == 401


def test_api_client_gets_401_in_mlflows_form_when_anonymous(stack: Stack) -> None:
    answer = search(stack)
    assert answer.status_code == 401
    assert answer.json()["error_code"] == "UNAUTHENTICATED"
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_browser_is_sent_to_sign_in_when_anonymous(stack: Stack) -> None:
    answer = httpx.get(stack.url + "/mlflow/?a=1&b=2", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (302, "/login/?next=/mlflow/%3Fa%3D1%26b%3D2")


def test_ui_is_served_when_a_session_cookie_is_sent(stack: Stack) -> None:
    cookies = {"sessionid": stack.sessions["viewer"]}
    page = httpx.get(stack.url + "/mlflow/", cookies=cookies, headers={"Accept": "text/html"})
    assert page.status_code == 200 and "<html" in page.text
    assert httpx.get(stack.url + "/mlflow", cookies=cookies).headers["location"] == "/mlflow/"
    ajax = httpx.get(stack.url + "/mlflow/ajax-api/2.0/mlflow/experiments/search?max_results=5", cookies=cookies)
    assert ajax.status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "SELF"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"}, 403),
        ({"Origin": "SELF"}, 200),
    ],
)
def test_only_own_pages_may_post_when_the_cookie_signs_in(stack: Stack, headers: dict[str, str], status: int) -> None:
    headers = {name: value.replace("SELF", stack.url) for name, value in headers.items()}
    answer = search(stack, headers=headers, cookies={"sessionid": stack.sessions["developer"]})
    assert answer.status_code == status


def test_made_up_session_is_refused_when_nobody_signed_in(stack: Stack) -> None:
    headers = {"Sec-Fetch-Site": "same-origin"}
    assert search(stack, headers=headers, cookies={"sessionid": "x" * 32}).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/mlflow/api/2.0/mlflow-artifacts/artifacts/../../../../etc/passwd",
        "/mlflow/api/2.0/mlflow-artifacts/artifacts/%2e%2e/%2e%2e/secret",
        "/mlflow/api/2.0/mlflow-artifacts/artifacts/..%2f..%2fsecret",
        "/mlflow/api/2.0/mlflow-artifacts/artifacts/%252e%252e%252fsecret",
        "/mlflow/api/2.0/mlflow-artifacts/artifacts/a%5c..%5csecret",
        "/mlflow/api/2.0/mlflow-artifacts/artifacts/a%00b",
        "/mlflow/../admin/",
        "/mlflow/%2e%2e/admin/",
    ],
)
def test_path_is_refused_when_it_leads_upwards(stack: Stack, path: str) -> None:
    token = stack.tokens["root"]
    line = raw(stack, f"GET {path} HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer {token}\n\n")
    assert " 400 " in line


def test_host_is_refused_when_it_is_not_ours(stack: Stack) -> None:
    assert search(stack, headers={**stack.bearer("root"), "Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "token", "status"),
    [
        ("GET", "/mlflow/ajax-api/3.0/mlflow/assistant/config", "root", 403),
        ("POST", "/mlflow/ajax-api/3.0/mlflow/assistant/message", "root", 403),
        ("GET", "/mlflow/api/2.0/mlflow/webhooks", "developer", 403),
        ("GET", "/mlflow/api/2.0/mlflow/webhooks", "root", 200),
        ("GET", "/mlflow/api/3.0/mlflow/gateway/secrets/list", "developer", 403),
    ],
)
def test_doors_to_other_hosts_stay_shut_when_asked_for(
    stack: Stack, method: str, path: str, token: str, status: int
) -> None:
    assert httpx.request(method, stack.url + path, headers=stack.bearer(token)).status_code == status


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "NAME", "artifact_location": "file:///etc"}',
        '{"name": "NAME", "artifactLocation": "/etc"}',
        '{"name": "NAME", "artifact_location": "mlflow-artifacts:/x", "artifact_location": "/etc"}',
        '"{\\"name\\": \\"NAME\\", \\"artifact_location\\": \\"/etc\\"}"',
        '{"name": "NAME", "artifact_location": "mlflow-artifacts:/a/../../b"}',
        '{"name": "NAME", "artifact_location": "s3://strangers/bucket"}',
    ],
)
def test_experiment_is_refused_when_its_files_would_lie_elsewhere(stack: Stack, body: str) -> None:
    headers = {**stack.bearer("developer"), "Content-Type": "application/json"}
    answer = httpx.post(stack.url + CREATE, content=body.replace("NAME", "elsewhere"), headers=headers)
    assert answer.status_code == 400
    assert "artifact location" in answer.json()["message"]


def test_trace_tag_is_refused_when_it_names_a_file_of_the_server(stack: Stack) -> None:
    answer = httpx.patch(
        stack.url + "/mlflow/api/3.0/mlflow/traces/tr-1/tags",
        json={"key": "mlflow.artifactLocation", "value": "/etc"},
        headers=stack.bearer("developer"),
    )
    assert answer.status_code == 400


def test_call_is_refused_when_it_is_large_and_no_artifact(stack: Stack) -> None:
    head = f"POST /mlflow/api/2.0/mlflow/runs/log-batch HTTP/1.1\nHost: 127.0.0.1\nContent-Length: {2**33}\n"
    assert " 413 " in raw(stack, f"{head}Authorization: Bearer {stack.tokens['developer']}\n\n")
