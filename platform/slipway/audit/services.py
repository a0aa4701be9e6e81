"""Recording, sealing and checking.

Chaining inside the caller's transaction would make every write in the product wait for one lock. So an
entry is inserted with the change it describes, and a tick links the committed ones in order: each digest
covers the entry and the digest before it. A database trigger refuses to change or delete what is there.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import orjson
from django.db import connection, models, transaction

from slipway.audit.models import Entry

_LOCK = 0x511B_AD17  # any number that nothing else uses as an advisory lock


def record(*, actor: Any, action: str, target: models.Model, project_id: int | None, **data: Any) -> Entry:
    """Adds an entry within the caller's transaction. `actor` None is Slipway itself."""
    return Entry.objects.create(
        project_id=project_id,
        actor=actor,
        actor_name=actor.get_username() if actor is not None else "slipway",
        action=action,
        object_type=target._meta.model_name or "",
        object_id=str(target.pk),
        data=orjson.loads(orjson.dumps(data, default=str)),
    )


def entry_digest(entry: Entry, position: int, previous: str) -> str:
    """SHA-256 over the entry's fields, its position and the digest before it (canonical JSON)."""
    content = {
        "position": position,
        "previous": previous,
        "at": entry.at.isoformat(),
        "project": entry.project_id,
        "actor": entry.actor_name,
        "action": entry.action,
        "object": [entry.object_type, entry.object_id],
        "data": entry.data,
    }
    return hashlib.sha256(_canonical(content)).hexdigest()


def _canonical(content: dict[str, Any]) -> bytes:
    """Sorted JSON. PostgreSQL gives 1e22 back as a whole number, which is beyond what orjson writes."""
    try:
        return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@transaction.atomic
def chain_seal(limit: int = 1000) -> int:
    """Links committed entries to the chain; returns how many. Safe to run by several at once."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    head = Entry.objects.filter(position__isnull=False).order_by("-position").first()
    position, previous = (head.position or 0, head.digest) if head else (0, "")
    entries = list(Entry.objects.filter(position__isnull=True).order_by("id")[:limit])
    for entry in entries:
        position += 1
        entry.position, entry.previous = position, previous
        previous = entry.digest = entry_digest(entry, position, previous)
    Entry.objects.bulk_update(entries, ["position", "previous", "digest"])
    return len(entries)


def chain_verify() -> tuple[int, int | None]:
    """(entries checked, position of the first broken link or None)."""
    previous, checked = "", 0
    for entry in Entry.objects.filter(position__isnull=False).order_by("position").iterator():
        expected = entry_digest(entry, checked + 1, previous)
        if entry.position != checked + 1 or entry.previous != previous or entry.digest != expected:
            return checked, entry.position
        previous, checked = entry.digest, checked + 1
    return checked, None
