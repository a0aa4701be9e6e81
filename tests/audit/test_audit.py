"""The chain: sealed, verified, never changed, and found out when it was."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection, transaction

from slipway.audit.models import Entry
from slipway.audit.services import chain_seal, chain_verify, record
from tests.api.tools import race


@pytest.fixture
def entries(people, project, model) -> list[Entry]:
    made = [
        record(actor=people["developer"], action="model.update", target=model, project_id=project.pk, n=n, text="é中文")
        for n in range(5)
    ]
    assert chain_seal() == 5
    return made


def tamper(statement: str, *values: object) -> None:
    """What somebody with the database's superuser can do: write with the triggers off."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE audit_entry DISABLE TRIGGER audit_append_only")
        cursor.execute(statement, values)
        cursor.execute("ALTER TABLE audit_entry ENABLE TRIGGER audit_append_only")


@pytest.mark.django_db
def test_chain_verifies_when_sealed(entries) -> None:
    assert chain_verify() == (5, None)
    assert list(Entry.objects.order_by("id").values_list("position", flat=True)) == [1, 2, 3, 4, 5]
    assert chain_seal() == 0


@pytest.mark.django_db
def test_unsealed_entries_wait_when_chain_is_verified(entries, people, project, model) -> None:
    record(actor=None, action="x", target=model, project_id=project.pk)
    assert chain_verify() == (5, None)
    assert chain_seal() == 1 and chain_verify() == (6, None)
    assert Entry.objects.first().actor_name == "slipway"


@pytest.mark.django_db
def test_chain_is_sealed_in_batches_when_limit_is_small(people, project, model) -> None:
    for n in range(5):
        record(actor=None, action="x", target=model, project_id=project.pk, n=n)
    assert [chain_seal(limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert chain_verify() == (5, None)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "data",
    [
        {"share": 1e22}, {"share": 2.0**80}, {"share": 1e-7, "n": 1.0}, {"n": 2**63 - 1}, {"deep": [{"a": [1, None]}]},
        {"text": "\u2028 \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")},
    ],
)  # fmt: skip
def test_chain_seals_and_verifies_when_data_is_odd(data, project, model) -> None:
    record(actor=None, action="x", target=model, project_id=project.pk, **data)
    assert chain_seal() == 1
    assert chain_verify() == (1, None)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        "actor_name = 'admin'", "action = 'model.other'", "data = '{\"n\": 99}'", "at = at + interval '1 second'",
        "object_id = '999'", "project_id = NULL", "digest = repeat('0', 64)", "previous = repeat('0', 64)",
        "position = 77",
    ],
)  # fmt: skip
def test_tampering_is_found_when_a_superuser_writes(change: str, entries) -> None:
    tamper(f"UPDATE audit_entry SET {change} WHERE id = %s", entries[2].pk)
    checked, broken = chain_verify()
    assert checked == 2 and broken is not None


@pytest.mark.django_db
def test_deletion_is_found_when_an_entry_of_the_middle_is_gone(entries) -> None:
    tamper("DELETE FROM audit_entry WHERE id = %s", entries[1].pk)
    assert chain_verify() == (1, 3)


@pytest.mark.django_db
def test_rewritten_entry_is_found_when_its_own_digest_was_computed_anew(entries) -> None:
    from slipway.audit.services import entry_digest

    row = Entry.objects.get(pk=entries[2].pk)
    row.data = {"n": 99}
    tamper(
        "UPDATE audit_entry SET data = %s, digest = %s WHERE id = %s",
        '{"n": 99}', entry_digest(row, row.position, row.previous), row.pk,
    )  # fmt: skip
    assert chain_verify() == (3, 4)


@pytest.mark.django_db
@pytest.mark.parametrize("sealed", [True, False])
def test_change_and_deletion_are_refused_when_tried(sealed: bool, people, project, model) -> None:
    entry = record(actor=None, action="x", target=model, project_id=project.pk)
    if sealed:
        chain_seal()
    rows = Entry.objects.filter(pk=entry.pk)
    for attempt in (
        lambda: rows.update(action="y"),
        lambda: rows.update(data={"a": 1}, position=50, digest="0" * 64),
        lambda: rows._raw_delete(using="default"),
    ):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            attempt()
    if sealed:
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            rows.update(position=9, digest="0" * 64)
    assert rows.get().action == "x"


@pytest.mark.django_db
def test_users_and_projects_stay_when_the_log_names_them(entries, people, project) -> None:
    for row in (people["developer"], project):
        with pytest.raises(Exception, match="protected"), transaction.atomic():
            row.delete()


@pytest.mark.django_db
def test_entry_is_gone_when_its_change_rolls_back(project, model) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        record(actor=None, action="x", target=model, project_id=project.pk)
        raise RuntimeError
    assert not Entry.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_chain_has_no_fork_when_eight_seal_and_write_at_once(project, model) -> None:
    def work(index: int) -> None:
        for n in range(5):
            record(actor=None, action="x", target=model, project_id=project.pk, n=n, who=index)
            chain_seal()

    assert race(8, work) == [None] * 8
    chain_seal()
    assert chain_verify() == (40, None)
