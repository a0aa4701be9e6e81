"""What the pages of all rooms share: one write with its problem shown, cursors, the project in the address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.contrib import messages
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import url_has_allowed_host_and_scheme

from slipway.accounts import policy
from slipway.accounts.models import Project, User
from slipway.api.problems import describe


class SignedIn(HttpRequest):
    """The request of a page behind `login_required`."""

    user: User  # type: ignore[assignment]


T = TypeVar("T")
M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Failure:
    """Why a change was refused, in words for people."""

    status: int
    text: str
    field: str


@dataclass(frozen=True)
class Attempt(Generic[T]):
    """The outcome of one service call."""

    value: T | None = None
    failure: Failure | None = None


def attempt(call: Callable[[], T]) -> Attempt[T]:
    """Makes one service call; errors that have a text for people are returned, others are raised."""
    try:
        return Attempt(value=call())
    except Http404:
        raise
    except Exception as error:
        found = describe(error)
        if found is None:
            raise
        status, text, _, rows = found
        return Attempt(failure=Failure(status, text, rows[0]["field"] if rows else ""))


def act(request: HttpRequest, call: Callable[[], Any], done: Any, back: str = "") -> HttpResponse:
    """A button's change: one service call, then the page again with what happened said on top."""
    outcome = attempt(call)
    if outcome.failure:
        messages.error(request, outcome.failure.text)
    elif done:
        messages.success(request, done)
    return HttpResponseRedirect(back_to(request, back))


def back_to(request: HttpRequest, default: str = "/") -> str:
    """The page that the form names in `back`, if it is one of ours."""
    given = request.POST.get("back", "")
    return given if url_has_allowed_host_and_scheme(given, allowed_hosts=None) else default or "/"


def posted(request: HttpRequest) -> Any:
    """What a form is bound to: the body of a POST, even an empty one; None on GET."""
    return request.POST if request.method == "POST" else None


def show_failure(form: Any, failure: Failure | None) -> None:
    """Puts a refusal beside the field at fault (its own name is the last part of the API's), or on top of the form."""
    if failure is not None:
        name = (failure.field or "").rpartition(".")[2]
        form.add_error(name if name in form.fields else None, failure.text)


def project_of(request: HttpRequest) -> Project | None:
    """The project that the address names; None is "all of mine". A stranger's project is not found."""
    slug = text_in(request.GET, "project")
    if not slug:
        return None
    project = policy.projects_of(request.user).filter(slug=slug).first()
    if project is None:
        raise Http404
    return project


def text_in(values: Any, name: str, most: int = 100) -> str:
    """A text from the address, without what PostgreSQL cannot hold."""
    return str(values.get(name) or "").replace("\x00", "").strip()[:most]


def number(text: str | None, largest: int = 2**31 - 1) -> int | None:
    """A positive number from the address, or None."""
    return int(text) if text and text.isascii() and text.isdigit() and int(text) <= largest else None


@dataclass(frozen=True)
class Slice(Generic[T]):
    """Some rows, and the cursor of the next ones."""

    rows: list[T]
    next: Any = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def newest(rows: QuerySet[M], before: str | None, size: int = 50) -> Slice[M]:
    """A page of the newest rows by id; it costs the same on the first and the thousandth page."""
    cursor = number(before, 2**63 - 1)
    if cursor is not None:
        rows = rows.filter(pk__lt=cursor)
    found = list(rows.order_by("-pk")[: size + 1])
    return Slice(found[:size], found[size - 1].pk if len(found) > size else None)
