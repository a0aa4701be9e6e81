"""Hostile files and requests at the upload API of a real server."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.hostile.conftest import metered, quiet, rows, stored
from tests.hostile.requests import GOOD, PATH, request
from tests.hostile.table import Case, by
from tests.mlflow.stack import Stack


def post(server: Stack, body: bytes, **query: str) -> httpx.Response:
    headers = {**server.bearer("developer"), "Content-Type": "application/octet-stream"}
    return httpx.post(
        f"{server.url}{PATH}{''.join(f'&{key}={text}' for key, text in query.items())}",
        content=body,
        headers=headers,
        timeout=60,
    )


def sent(server: Stack, data: bytes) -> tuple[int, dict[str, str], str]:
    """(status, headers, body) of the answer to bytes on the wire."""
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), int(address.port or 80)), timeout=60) as line:
        with contextlib.suppress(OSError):  # it may answer and hang up before it has read everything
            line.sendall(data)
        answer = b""
        with contextlib.suppress(OSError):
            while piece := line.recv(65536):
                answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): text for name, _, text in (each.partition(": ") for each in lines)}
    return int(first.split()[1]) if first else 0, headers, body.decode("utf-8", "replace")


def held(server: Stack) -> tuple[dict[str, int], set[str]]:
    return rows(server.env["DATABASE_URL"]), stored(Path(server.env["SLIPWAY_HOME"]))


def works(server: Stack) -> None:
    """The next request is answered."""
    answer = httpx.get(f"{server.url}/api/v1/versions", headers=server.bearer("developer"), timeout=20)
    assert answer.status_code == 200, answer.text


def problem(text: str, status: int, word: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(text)
    assert 400 <= status < 500 and body["status"] == status, text
    assert word.lower() in body["detail"].lower(), (word, body)
    return body


@pytest.mark.parametrize("case", by("upload"), ids=str)
def test_upload_is_refused_with_its_cause_when_the_file_is_hostile(case: Case, server: Stack) -> None:
    body, before = case.make(), held(server)
    with metered(server.pid, case):
        answer = post(server, body)
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    quiet(answer.text, server.folder)
    problem(answer.text, answer.status_code, case.word)
    assert held(server) == before
    works(server)


@pytest.mark.parametrize("case", by("request"), ids=str)
def test_request_is_refused_with_its_cause_when_it_is_hostile(case: Case, server: Stack) -> None:
    data, before = case.make(server.tokens["developer"]), held(server)
    with metered(server.pid, case):
        status, headers, text = sent(server, data)
    quiet(text, server.folder)
    assert headers.get("content-type") == "application/problem+json", (status, headers, text)
    problem(text, status, case.word)
    assert held(server) == before
    works(server)


def test_nothing_is_left_when_a_client_hangs_up_in_the_middle(server: Stack) -> None:
    """Case 17 too: nobody is there to hear that the body is shorter than it says."""
    before, address = held(server), urlsplit(server.url)
    with socket.create_connection((str(address.hostname), int(address.port or 80))) as line:
        line.sendall(request(server.tokens["developer"], GOOD, Content_Length="99999"))
    deadline = time.monotonic() + 5
    while held(server) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert held(server) == before
    works(server)


def test_both_are_versions_of_one_file_when_a_digest_comes_twice_at_once(server: Stack) -> None:
    [case] = by("twice")
    body = case.make()
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(post(server, body))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [201, 201], [answer.text for answer in answers]
    assert {answer.json()["number"] for answer in answers} == {1, 2}
    [digest] = {answer.json()["sha256"] for answer in answers}
    assert [Path(name).name for name in held(server)[1]] == [digest]


def test_good_file_is_taken_when_all_hostile_ones_were_sent(server: Stack) -> None:
    assert post(server, GOOD, task="other").status_code == 201
