"""Numbers, versions from MLflow, copies, aliases, approvals."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError

from engine.errors import EngineError
from registry import intake, results, services
from registry.models import Alias, Artifact, Model, Version
from registry.signing import attest
from slipway.api.problems import Conflict, Problem
from slipway.audit.models import Entry
from slipway.jobs.models import Job
from tests.api.tools import race

DIGEST = "a" * 64
NAMED = ("format", "sha256", "size", "file_name")


# Numbers


@pytest.mark.django_db(transaction=True)
def test_numbers_are_unique_and_without_gap_when_twenty_register_at_once(project, model, new_version) -> None:
    sha256 = new_version().artifacts.get().sha256
    made = race(20, lambda index: intake.version_copy(actor=None, model=Model.objects.get(pk=model.pk), sha256=sha256))
    assert sorted(version.number for version in made) == list(range(2, 22))
    assert Model.objects.get(pk=model.pk).last_number == 21
    assert Entry.objects.filter(action="version.register").count() == 20


@pytest.mark.django_db(transaction=True)
def test_one_champion_when_ten_set_it_at_once(model, new_version) -> None:
    versions = [new_version() for _ in range(10)]

    def work(index: int) -> Any:
        return services.alias_set(actor=None, model=model, name="champion", version=versions[index])

    done = race(10, work)
    assert all(isinstance(one, Alias | Conflict | IntegrityError | ValidationError) for one in done), done
    assert Alias.objects.filter(model=model, name="champion").count() == 1


@pytest.mark.django_db(transaction=True)
def test_number_is_not_lost_when_model_is_changed_beside_registrations(people, model, new_version) -> None:
    sha256 = new_version().artifacts.get().sha256

    def work(index: int) -> Any:
        if index % 2:
            return services.model_update(actor=people["root"], model=model, description=str(index))
        return intake.version_copy(actor=None, model=model, sha256=sha256)

    assert not [one for one in race(10, work) if isinstance(one, Exception)]
    fresh = Model.objects.get(pk=model.pk)
    assert (fresh.last_number, fresh.revision) == (6, 6)


@pytest.mark.django_db(transaction=True)
def test_mlflow_version_is_taken_in_once_when_ten_reconcile_it(project, model) -> None:
    Model.objects.filter(pk=model.pk).update(mlflow_name="digits")

    def work(index: int) -> Version:
        return intake.version_from_mlflow(
            project=project, mlflow_name="digits", mlflow_version=3, source="models:/m-1", run_id=""
        )

    done = race(10, work)
    assert len({version.pk for version in done}) == 1
    assert Job.objects.filter(kind="ingest").count() == 1 and Version.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_results_are_one_row_each_when_written_eight_times_at_once(project, model, new_version) -> None:
    version = new_version()

    def work(index: int) -> tuple[int, int]:
        artifact = results.artifact_record(
            version=version, format="pmml", sha256=DIGEST, size=1, file_name="m.pmml", uri="x"
        )
        data = results.dataset_record(
            version=version, role="evaluation", sha256=DIGEST, size=1, file_name="d.csv", uri="x"
        )
        return artifact.pk, data.pk

    assert len(set(race(8, work))) == 1


# From MLflow


def take(project: Any, name: str, number: int = 1, **more: Any) -> Version:
    return intake.version_from_mlflow(
        project=project, mlflow_name=name, mlflow_version=number, source="models:/m-1", run_id="", **more
    )


@pytest.mark.django_db
def test_version_from_mlflow_is_the_first_one_when_repeated(project) -> None:
    first = take(project, "digits", task="image-classification", description="card")
    again = take(project, "digits")
    assert again.pk == first.pk and Job.objects.filter(kind="ingest").count() == 1
    assert (first.state, first.origin, first.number, first.card) == ("pending", "mlflow", 1, "card")
    assert first.model.task == "image-classification" and first.job.params == {"version_id": first.pk}
    assert take(project, "digits", 9).number == 2


@pytest.mark.django_db
def test_models_of_colliding_mlflow_names_are_apart_when_taken_in(project) -> None:
    names = ["a/b", "a:b", "a?b", "a*b", "模型", "数据", "-x", "é", "a" * 200]
    models = [take(project, name).model for name in names]
    assert len({row.pk for row in models}) == len(names)
    assert [take(project, name, 2).model for name in names] == models
    assert models[0].name == "a-b"


@pytest.mark.django_db
def test_model_made_by_hand_is_used_when_mlflow_has_its_name(project, model) -> None:
    assert take(project, "digits").model == model
    model.refresh_from_db()
    assert model.mlflow_name == "digits"


@pytest.mark.django_db
@pytest.mark.parametrize("task", ["", "nonsense", "a" * 500])
def test_task_is_other_when_mlflow_tag_is_unknown(task: str, project) -> None:
    assert take(project, "m", task=task).model.task == "other"


@pytest.mark.django_db
def test_archived_model_takes_no_version_when_asked(project, model, people, new_version) -> None:
    sha256 = new_version().artifacts.get().sha256
    model = services.model_update(actor=people["developer"], model=model, archived=True)
    with pytest.raises(Conflict, match="archived"):
        intake.version_copy(actor=None, model=model, sha256=sha256)
    assert Entry.objects.get(action="model.update").data["changes"] == {"archived": True}
    model = services.model_update(actor=people["developer"], model=model, archived=False)
    assert intake.version_copy(actor=None, model=model, sha256=sha256).number == 2


# Copies


@pytest.mark.django_db
def test_copy_keeps_bytes_and_signature_when_artifact_is_fit(people, model, new_version) -> None:
    asks = {"requirements": ["scikit-learn==1.7.2"], "python": "3.11.7", "requirements_refused": []}
    origin = new_version(
        signature={"inputs": [1]}, framework="sklearn", params={**asks, "run": {"x": "1"}}, packages=["numpy"]
    )
    artifact = origin.artifacts.get()
    made = intake.version_copy(actor=people["developer"], model=model, sha256=artifact.sha256)
    copied = made.artifacts.get()
    assert (made.number, made.origin, made.state, made.signature) == (2, "copy", "ready", {"inputs": [1]})
    assert (copied.sha256, copied.uri, copied.verdict) == (artifact.sha256, artifact.uri, "clean")
    assert made.created_by == people["developer"] and (made.params, made.packages) == (asks, ["numpy"])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"state": "rejected"}, Conflict), ({"state": "pending"}, Conflict), ({"verdict": "rejected"}, Conflict),
        ({"format": "pmml"}, Problem), ({"sha256": "f" * 64}, Problem),
    ],
)  # fmt: skip
def test_copy_is_refused_when_artifact_is(change, error, people, model, new_version) -> None:
    version = new_version()
    sha256 = version.artifacts.get().sha256
    if "state" in change:
        Version.objects.update(**change)
    else:
        row = Artifact.objects.get()
        for name, value in change.items():
            setattr(row, name, value)
        row.attestation = attest(version, **{name: getattr(row, name) for name in NAMED})
        row.save()
    with pytest.raises(error):
        intake.version_copy(actor=people["developer"], model=model, sha256=sha256)
    model.refresh_from_db()
    assert Version.objects.count() == 1 and model.last_number == 1


@pytest.mark.django_db
def test_copy_is_refused_when_artifact_is_of_another_project(people, new_version) -> None:
    from slipway.accounts.models import Project

    sha256 = new_version().artifacts.get().sha256
    foreign = Model.objects.create(project=Project.objects.get(slug="other"), name="mine")
    with pytest.raises(Problem, match="holds no artifact"):
        intake.version_copy(actor=people["stranger"], model=foreign, sha256=sha256)


@pytest.mark.django_db
@pytest.mark.parametrize("who", ["viewer", "approver", "stranger"])
def test_writes_are_refused_when_role_is(who: str, people, project, model, new_version) -> None:
    version, user = new_version(), people[who]
    artifact = version.artifacts.get()
    for attempt in (
        lambda: services.model_create(actor=user, project=project, name="x"),
        lambda: services.model_update(actor=user, model=model, description="x"),
        lambda: services.alias_set(actor=user, model=model, name="champion", version=version),
        lambda: services.alias_remove(actor=user, model=model, name="champion"),
        lambda: services.export_request(actor=user, version=version, exporters=["onnx"]),
        lambda: services.optimize_request(actor=user, artifact=artifact, optimizer="dynamic-quantization", options={}),
        lambda: intake.version_copy(actor=user, model=model, sha256=artifact.sha256),
    ):
        with pytest.raises(PermissionDenied):
            attempt()
    assert not Entry.objects.exists()


# Aliases


@pytest.mark.django_db
def test_alias_moves_when_set_again(people, model, new_version) -> None:
    one, two = new_version(), new_version()
    for version in (one, two):
        services.alias_set(actor=people["developer"], model=model, name="champion", version=version)
    assert Alias.objects.get(model=model).version == two
    last = Entry.objects.filter(action="alias.set").first()
    assert last.data == {"alias": "champion", "before": one.pk}
    services.alias_remove(actor=people["developer"], model=model, name="champion")
    with pytest.raises(Problem) as gone:
        services.alias_remove(actor=people["developer"], model=model, name="champion")
    assert gone.value.status == 404


@pytest.mark.django_db
def test_protected_alias_needs_an_approver_when_moved(people, model, new_version) -> None:
    version = new_version()
    Alias.objects.create(model=model, name="champion", version=version, protected=True)
    for attempt in (
        lambda who: services.alias_set(actor=people[who], model=model, name="champion", version=version),
        lambda who: services.alias_remove(actor=people[who], model=model, name="champion"),
    ):
        with pytest.raises(PermissionDenied):
            attempt("developer")
        attempt("admin")


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["", "Champion", "1st", "a b", "a" * 33, "a\x00", "../x"])
def test_alias_is_refused_when_name_is_bad(name: str, model, new_version) -> None:
    with pytest.raises(ValidationError):
        services.alias_set(actor=None, model=model, name=name, version=new_version())
    assert not Alias.objects.exists()


@pytest.mark.django_db
def test_alias_is_refused_when_version_is_not_ready_or_of_another_model(project, model, new_version) -> None:
    with pytest.raises(Conflict):
        services.alias_set(actor=None, model=model, name="champion", version=new_version(state="pending"))
    other = Model.objects.create(project=project, name="other")
    with pytest.raises(Problem):
        services.alias_set(actor=None, model=other, name="champion", version=new_version())


# Approvals


@pytest.mark.django_db
def test_version_is_approved_by_another_when_four_eyes(people, new_version) -> None:
    version = new_version(created_by=people["admin"])
    with pytest.raises(Conflict, match="Somebody other"):
        services.version_decide(actor=people["admin"], version=version, approve=True)
    decided = services.version_decide(actor=people["approver"], version=version, approve=True, note="fits")
    assert (decided.approval, decided.approved_by, decided.revision) == ("approved", people["approver"], 2)
    assert Entry.objects.get(action="version.approved").data["note"] == "fits"


@pytest.mark.django_db
def test_maker_may_decline_or_be_superuser_when_deciding(people, new_version) -> None:
    mine = new_version(created_by=people["admin"])
    assert services.version_decide(actor=people["admin"], version=mine, approve=False).approval == "declined"
    root = new_version(created_by=people["root"])
    assert services.version_decide(actor=people["root"], version=root, approve=True).approval == "approved"


@pytest.mark.django_db
@pytest.mark.parametrize("who", ["viewer", "developer", "operator", "stranger"])
def test_decision_is_refused_when_role_is(who: str, people, new_version) -> None:
    with pytest.raises(PermissionDenied):
        services.version_decide(actor=people[who], version=new_version(), approve=True)


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["pending", "rejected"])
def test_approval_is_refused_when_version_is(state: str, people, new_version) -> None:
    with pytest.raises(Conflict):
        services.version_decide(actor=people["approver"], version=new_version(state=state), approve=True)


@pytest.mark.django_db
def test_export_keeps_options_and_names_the_field_when_one_is_wrong(people, new_version) -> None:
    version, asked = new_version(), {"exporters": ["onnx", "ort"]}

    def request(**options: Any) -> list[Job]:
        return services.export_request(actor=people["developer"], version=version, **asked, options=options)

    jobs = request(ort={"level": "basic"})
    assert [job.params["options"] for job in jobs] == [{}, {"level": "basic"}]
    for options, field in (
        ({"ort": {"speed": 1}}, "options.ort.speed"),
        ({"ort": {"level": "all"}}, "options.ort.level"),
        ({"pmml": {}}, "options.pmml"),
    ):
        with pytest.raises((Problem, EngineError)) as caught:
            request(**options)
        assert caught.value.field == field
