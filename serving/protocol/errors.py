"""Errors a client may see: a status and one sentence, never internals."""

from __future__ import annotations


class ServingError(Exception):
    """A refusal with its HTTP status. `text` is shown to the client as {"error": text}."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class BadInput(ServingError):
    """A tensor does not fit the model (400). Kept apart because it can be the model's fault:
    when two live deployments differ in their signature, it counts against the one that refused."""

    def __init__(self, text: str) -> None:
        super().__init__(400, text)


def bad_request(text: str) -> ServingError:
    """A 400 that says what is wrong with the request itself."""
    return ServingError(400, text)


def crowded() -> ServingError:
    """A 503 for a body that finds the budget of all large ones used up."""
    return ServingError(503, "too many large bodies at once", ((b"retry-after", b"1"),))


def shown(value: object, limit: int = 80) -> str:
    """A client's own word, shortened and made printable for use in an error text."""
    text = str(value)
    text = text if len(text) <= limit else text[:limit] + "…"
    return "".join(c if c.isprintable() else "?" for c in text)
