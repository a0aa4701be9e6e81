"""What cannot be optimized, and variants that are broken: each ends in a clear result and leaves no artifact behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from registry.models import Artifact, Model
from registry.searches import search_request
from registry.services import optimize_request
from slipway.api.problems import Problem
from slipway.jobs.models import Job, State
from tests.e2e import small
from tests.registry import lab

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("use_mlflow", "quick")]
Net = onnx.ModelProto


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of measuring says as much here as five."""
    for module in ("lab", "trials"):
        monkeypatch.setattr(f"workers.{module}.ROUNDS", 1)


@pytest.fixture
def base(model: Model) -> Artifact:
    return lab.artifact(model)


def by_hand(artifact: Artifact, method: str, **options: Any) -> Job:
    return lab.run(optimize_request(actor=None, artifact=artifact, optimizer=method, options=options))


def test_search_is_refused_when_there_is_no_evaluation_set(base: Artifact) -> None:
    with pytest.raises(Problem, match="no evaluation set to judge variants on"):
        search_request(actor=None, artifact=base, goal={})
    assert not Job.objects.exists()


def test_method_asks_for_rows_when_there_are_none_to_calibrate_with(base: Artifact) -> None:
    job = by_hand(base, "static-quantization")
    assert job.state == State.FAILED and "rows" in job.reason, job.reason
    assert list(Artifact.objects.all()) == [base]


def branched() -> bytes:
    """The small classifier's inputs and outputs around an If; its branches are the same product of matrices."""
    random = np.random.default_rng(1)
    scores = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", small.CLASSES])
    branch = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["logits"])], "branch", [], [scores])
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["which"], to=TensorProto.BOOL),
        helper.make_node("If", ["which"], ["chosen"], then_branch=branch, else_branch=branch),
        helper.make_node("Softmax", ["chosen"], ["scores"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    return _saved(nodes, {"w": random.normal(size=(small.FEATURES, small.CLASSES))})


def unusual() -> bytes:
    """A model without weights: nothing that any quantizer or pruner knows."""
    nodes = [
        helper.make_node("Det", ["square"], ["size"]),
        helper.make_node("Expand", ["size", "three"], ["wide"]),
        helper.make_node("Softmax", ["wide"], ["scores"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    square = [
        helper.make_node("Reshape", ["x", "sides"], ["square"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["count"]),
        helper.make_node("Concat", ["count", "classes"], ["three"], axis=0),
    ]
    # n determinants, as a column beside which the classes are laid.
    nodes.insert(1, helper.make_node("Unsqueeze", ["size", "one"], ["column"]))
    nodes[2].input[0] = "column"
    whole = {"sides": [-1, 2, 2], "zero": [0], "one": [1], "classes": [small.CLASSES]}
    return _saved([*square, *nodes], {}, {name: np.array(value, np.int64) for name, value in whole.items()})


def _saved(nodes: list[Any], weights: dict[str, Any], whole: dict[str, Any] | None = None) -> bytes:
    constants = {name: value.astype(np.float32) for name, value in weights.items()} | (whole or {})
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", small.FEATURES])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", small.CLASSES]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("content", "words"),
    [(branched(), "If"), (unusual(), "by stored weights that could be quantized")],
    ids=["control flow", "unsupported operators"],
)
def test_search_ends_in_words_when_the_graph_cannot_be_changed(model: Model, content: bytes, words: str) -> None:
    base = lab.artifact(model, content=content)
    lab.dataset(base.version, lab.rows(200, model=content))
    search = search_request(actor=None, artifact=base, goal={"trials": 4, "minutes": 5})
    assert lab.finish(search).state == State.SUCCEEDED
    assert search.found is not None and search.found.reasons
    kept = set(search.trials.exclude(artifact=None).values_list("artifact", flat=True))
    assert set(Artifact.objects.exclude(pk=base.pk).values_list("pk", flat=True)) == kept
    assert all(search.trials.exclude(state="measured").values_list("reason", flat=True))
    for method, reason in (("static-quantization", words), ("prune-channels", "no layers whose channels")):
        job = by_hand(base, method)
        assert job.state == State.FAILED and reason in job.reason, job.reason
    assert set(Artifact.objects.exclude(pk=base.pk).values_list("pk", flat=True)) == kept


def test_nearest_and_what_to_relax_are_told_when_nothing_meets_the_budget(base: Artifact) -> None:
    lab.dataset(base.version, lab.rows(400))
    asked = {"trials": 2, "minutes": 5, "max_loss": 50, "size_mb": 1e-6}
    search = search_request(actor=None, artifact=base, goal=asked)
    job = lab.finish(search)
    assert job.state == State.SUCCEEDED and job.result["recommended"] is None
    assert search.found is not None and search.found.nearest
    assert "would do with a size of" in str(search.found.relax[0])


def without_a_tensor(net: Net) -> None:
    net.graph.node[0].input[0] = "nowhere"


def answering_nan(net: Net) -> None:
    for weight in net.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32("nan"), weight.name))


def of_other_outputs(net: Net) -> None:
    del net.graph.output[0]


BROKEN = {
    without_a_tensor: "nowhere",
    answering_nan: "not finite",
    of_other_outputs: "no longer those of its parent",
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
def test_no_artifact_is_left_when_a_recipe_makes_a_broken_model(
    base: Artifact, monkeypatch: pytest.MonkeyPatch, breaks: Callable[[Net], None]
) -> None:
    from workers.common import made_file

    def broken(made: Any, name: str, target: Path) -> Path:
        """What an optimizer made, as a faulty one would have made it."""
        file = made_file(made, name, target)
        if name == "model.onnx":
            net = onnx.load(file)
            breaks(net)
            file.write_bytes(net.SerializeToString())
        return file

    monkeypatch.setattr("workers.variants.made_file", broken)
    lab.dataset(base.version, lab.rows(400))
    job = by_hand(base, "codebook", entries=16)
    assert job.state == State.FAILED and BROKEN[breaks] in job.reason, job.reason
    search = search_request(actor=None, artifact=base, goal={"trials": 2, "minutes": 5})
    assert lab.finish(search).state == State.SUCCEEDED
    made = [trial for trial in search.trials.all() if BROKEN[breaks] in trial.reason]
    assert made and {trial.state for trial in search.trials.all()} == {"failed"}
    assert list(Artifact.objects.all()) == [base]
    assert search.found is not None and str(search.found.relax[0]) == "No variant could be made of this model."
