"""Hostile uploads (cases 17 to 20 and 24) as the bytes on the wire, made by code."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from tests.engine.onnx_files import relu

GOOD = relu().SerializeToString()
PATH = "/api/v1/versions/upload?project=vision&model=hostile"


def request(token: str, body: bytes, **headers: str) -> bytes:
    """An upload as bytes; headers given here come instead of the right ones."""
    lines = {
        "Host": "localhost",
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines |= {name.replace("_", "-"): text for name, text in headers.items()}
    head = "".join(f"{name}: {text}\r\n" for name, text in lines.items() if text)
    return f"POST {PATH} HTTP/1.1\r\n{head}\r\n".encode() + body


def chunks(token: str) -> bytes:
    body = b"6\r\nxxxxxx\r\n" * 500_000 + b"0\r\n\r\n"
    return request(token, body, Content_Length="", Transfer_Encoding="chunked")


def multipart(token: str, boundary: str) -> bytes:
    body = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="m.onnx"\r\n\r\n'.encode()
    body += GOOD + f"\r\n--{boundary}--\r\n".encode()
    return request(token, body, Content_Type=f"multipart/form-data; boundary={boundary}")


def bomb(token: str) -> bytes:
    return request(token, gzip.compress(bytes(300 << 20), 1), Content_Encoding="gzip")


# number, name, maker of the request, words of the cause
REQUESTS: list[tuple[int, str, Callable[[str], bytes], str]] = [
    (17, "Content-Length too short", lambda token: request(token, GOOD, Content_Length="20"), "ONNX"),
    (17, "Content-Length negative", lambda token: request(token, GOOD, Content_Length="-5"), "Invalid"),
    (17, "Content-Length enormous", lambda token: request(token, GOOD, Content_Length="9" * 15), "larger than"),
    (18, "half a million chunks", chunks, "Content-Length"),
    (19, "multipart boundary of 1 MB", lambda token: multipart(token, "b" * (1 << 20)), "too large"),
    (19, "multipart boundary of 30 kB", lambda token: multipart(token, "b" * 30_000), "multipart/form-data"),
    (20, "gzip-bombed body", bomb, "gzip archive"),
    (24, "resumed with other bytes", lambda token: request(
        token, GOOD[40:], Content_Range=f"bytes 40-{len(GOOD) - 1}/{len(GOOD)}"), "whole"),
]  # fmt: skip
