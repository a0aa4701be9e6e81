"""The REST API over HTTP: entity tags, idempotency keys, pages, and problems as errors for people."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import parse_qs, urlsplit

from slipway.cli.connection import Connection, is_loopback
from slipway.cli.errors import CliError, ExitCode, code_of

if TYPE_CHECKING:
    import httpx

PAGE = 100
Json = dict[str, Any]


class Read(NamedTuple):
    """A row and the entity tag it had when it was read."""

    row: Json
    etag: str


class Api:
    """One server. Nothing is opened, not even the HTTP library, before the first call."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @cached_property
    def http(self) -> httpx.Client:
        """The HTTP client; a proxy of the environment never gets calls to this machine."""
        import ssl

        import httpx

        token, addresses = self.connection.token, (self.connection.url, self.connection.serving)
        # Reading the certificate authorities takes longer than most calls. Without them TLS would only fail.
        plain = all(each.startswith("http://") for each in addresses)
        return httpx.Client(
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True,
            headers={
                "User-Agent": "slipway-cli",
                "Accept": "application/json",
                **({"Authorization": f"Bearer {token}"} if token else {}),
            },
            timeout=httpx.Timeout(60, connect=10),
            trust_env=not is_loopback(self.connection.url),
        )

    def url(self, path: str) -> str:
        """The address of an API path."""
        return f"{self.connection.url}/api/v1{path}"

    def call(self, method: str, path: str, *, repeat: bool = False, **options: Any) -> httpx.Response:
        """One API call. With `repeat` a lost answer is asked for once more (for what is safe to repeat)."""
        return self.fetch(method, self.url(path), repeat=repeat, **options)

    def fetch(self, method: str, url: str, *, repeat: bool = False, **options: Any) -> httpx.Response:
        """One call to any address of this Slipway; errors end in `CliError`."""
        import httpx

        with reaching(url):
            try:
                response = self.http.request(method, url, **options)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                if not repeat:
                    raise
                response = self.http.request(method, url, **options)
        check(response)
        return response

    def get(self, path: str, **params: Any) -> Any:
        """The JSON at a path."""
        return decoded(self.call("GET", path, repeat=True, params=_given(params)))

    def read(self, path: str) -> Read:
        """A row with its entity tag."""
        response = self.call("GET", path, repeat=True)
        return Read(decoded(response), response.headers.get("ETag", "*"))

    def create(self, path: str, body: Json) -> Any:
        """A POST that the server does once per key: safe to repeat when the answer was lost."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return decoded(self.call("POST", path, repeat=True, json=body, headers=headers))

    def post(self, path: str, body: Json | None = None, etag: str = "") -> Any:
        """An action; with `etag` only on the row as it was read."""
        headers = {"Idempotency-Key": uuid.uuid4().hex, **({"If-Match": etag} if etag else {})}
        return decoded(self.call("POST", path, json=body or {}, headers=headers))

    def change(self, method: str, path: str, body: Json | None = None, etag: str = "") -> Any:
        """PUT, PATCH or DELETE."""
        headers = {"If-Match": etag} if etag else {}
        return decoded(self.call(method, path, headers=headers, json=body))

    def rows(self, path: str, limit: int, **params: Any) -> Json:
        """At most `limit` rows as one page in the API's form, following cursors as far as needed."""
        page: Json = {}
        rows: list[Json] = []
        cursor: str | None = None
        while True:
            wanted = min(PAGE, limit - len(rows))
            page = self.get(path, **params, limit=wanted, cursor=cursor)
            rows += page["results"][:wanted]
            # Only the cursor is taken from the link: a server cannot send us, and our token, elsewhere.
            cursor = next(iter(parse_qs(urlsplit(page["next"] or "").query).get("cursor", [])), None)
            if not cursor or not page["results"] or len(rows) >= limit:
                return {"next": page["next"], "previous": None, "results": rows}

    def find(self, path: str, **params: Any) -> list[Json]:
        """The first page of rows: for looking a name up."""
        found: list[Json] = self.get(path, **params, limit=PAGE)["results"]
        return found


def _given(params: Json) -> Json:
    return {key: value for key, value in params.items() if value not in (None, "", [])}


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turns the HTTP library's errors into sentences."""
    import httpx

    place = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise CliError(
            f"Cannot reach {place}: {str(error) or 'no answer'}.",
            ExitCode.UNREACHABLE,
            ["Is Slipway running (`make up`), and is --url or SLIPWAY_URL right?"],
        ) from None
    except httpx.TimeoutException:
        raise CliError(f"{place} did not answer in time.", ExitCode.UNREACHABLE) from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise CliError(f"{place}: {error}.", ExitCode.USAGE) from None
    except httpx.TransportError as error:
        raise CliError(f"The connection to {place} broke: {error}.", ExitCode.UNREACHABLE) from None


def decoded(response: httpx.Response) -> Any:
    """The JSON of an answer; None without a body."""
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        _stranger(response)


def check(response: httpx.Response) -> None:
    """Raises what an error answer says: a problem document, a V2 error, or just its status."""
    if response.is_success:
        return
    if response.is_redirect:
        target = response.headers.get("Location", "")
        raise CliError(
            f"{response.request.url} redirects to {target}. Use that address as --url.", ExitCode.UNREACHABLE
        )
    response.read()
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        _stranger(response)
    detail = str(problem.get("detail") or problem.get("error") or problem.get("message") or response.reason_phrase)
    lines = []
    for row in problem.get("errors") or []:
        line = f"{row.get('field', '')}: {row.get('message', '')}"
        if row.get("field") and line != detail:
            lines.append(line)
    if response.status_code == 401:
        lines.append("Sign in with `slipway login --url …`, or set --token or SLIPWAY_TOKEN.")
    if response.status_code >= 500 and problem.get("request_id"):
        lines.append(f"request {problem['request_id']}")
    raise CliError(detail, code_of(response.status_code), lines, response.status_code)


def _stranger(response: httpx.Response) -> NoReturn:
    kind = response.headers.get("Content-Type", "no content type").split(";")[0]
    raise CliError(
        f"{response.request.method} {response.request.url} answered {response.status_code} with {kind}, "
        "which is not Slipway's API.",
        code_of(response.status_code) if response.is_error else ExitCode.SERVER,
    )
