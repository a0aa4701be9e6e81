"""XGBoost and LightGBM to ONNX by onnxmltools: one tree ensemble over a matrix `input`."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from engine.errors import EngineError
from engine.evaluate.rows import Rows

# Trees a node of a LightGBM regression: it adds doubles, ONNX floats, and groups that are added as doubles keep the
# difference from growing with the number of trees. onnxmltools refuses to make a single group.
_GROUP = 100


def convert(model: Any, rows: Rows, opset: int | None) -> bytes:
    """A graph with a dynamic batch: `input` float32 (n, features), then labels and probabilities as plain tensors
    for a classifier, numbers (n, targets) otherwise. EngineError(code="unsupported") with onnxmltools' reason."""
    from onnxmltools import convert_lightgbm, convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType
    from onnxmltools.convert.common.onnx_ex import get_maximum_opset_supported

    target = opset or get_maximum_opset_supported()

    def types(width: int) -> list[tuple[str, Any]]:
        return [("input", FloatTensorType([None, width]))]

    try:
        if type(model).__module__.startswith("xgboost."):
            plain = _plain_xgboost(model)
            width = plain.get_booster().num_features()
            made = convert_xgboost(plain, initial_types=types(width), target_opset=target)
        else:
            plain = _plain_lightgbm(model)
            booster = getattr(plain, "booster_", plain)
            options = {"zipmap": False, "split": _GROUP if booster.num_trees() > _GROUP else None}
            made = convert_lightgbm(plain, initial_types=types(booster.num_feature()), target_opset=target, **options)
    except (RuntimeError, ValueError, NotImplementedError, KeyError, AttributeError) as error:
        raise EngineError(
            f"onnxmltools cannot convert this model: {str(error).split(chr(10))[0][:200]}",
            field="exporter",
            code="unsupported",
        ) from error
    return _finished(made, target)


def _finished(made: Any, opset: int) -> bytes:
    """onnxmltools notes the least operator set its nodes need (none where all are ai.onnx.ml) and gives LightGBM's
    labels a fixed length of 1."""
    from onnx import helper

    others = [each for each in made.opset_import if each.domain]
    del made.opset_import[:]
    made.opset_import.extend([helper.make_opsetid("", opset), *others])
    made.ir_version = max(made.ir_version, helper.find_min_ir_version_for(made.opset_import))
    for output in made.graph.output:
        shape = output.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].Clear()
    return bytes(made.SerializeToString())


def _plain_xgboost(model: Any) -> Any:
    """The same trees in the form that onnxmltools reads without mistakes: features named f0, f1, ...; only the trees
    that predict; `multi:softprob` for its twin that only names the winner."""
    from engine.export.sources.xgboost_model import objective_of, wrapped

    booster = model.get_booster()
    learner = json.loads(booster.save_config())["learner"]
    shape, trees = learner["learner_model_param"], learner["gradient_booster"]
    if trees["name"] != "gbtree":
        raise _unsupported("XGBoost", f"boosters of kind {trees['name']}")
    if "c" in (booster.feature_types or []):
        raise _unsupported("XGBoost", "categorical features")
    if int(shape["num_target"]) > 1:
        raise _unsupported("XGBoost", "several targets")
    if int(shape["num_class"]) > 1 and int(trees["gbtree_model_param"]["num_parallel_tree"]) > 1:
        raise _unsupported("XGBoost", "several classes with num_parallel_tree above 1")
    if learner["objective"]["name"] == "reg:logistic":
        raise _unsupported("XGBoost", "the objective reg:logistic")
    best = booster.attr("best_iteration")
    booster = booster.copy() if best is None else booster[: int(best) + 1]
    booster.set_attr(best_iteration=None, best_score=None)
    booster.feature_names = None
    if objective_of(booster) == "multi:softmax":
        booster.set_param({"objective": "multi:softprob"})
    return wrapped(booster)


def _plain_lightgbm(model: Any) -> Any:
    """The same model with only the trees that predict, thresholds that floats can hold, and classes that are whole
    numbers or texts.

    A row x (float32) goes left where x <= t with t a double. ONNX rounds t to the nearest float, and where that is
    above t, a row that lies on it turns the other way; rounded down, x <= t means the same for every float32 x.
    """
    import lightgbm
    import numpy as np

    booster = getattr(model, "booster_", model)
    text = booster.model_to_string()
    _check_lightgbm(text)
    text = re.sub(r"^threshold=(.*)$", lambda found: "threshold=" + _rounded_down(found[1]), text, flags=re.MULTILINE)
    # Sizes in bytes of the trees' texts, which have changed; LightGBM does without the line.
    text = re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE)
    rounded = lightgbm.Booster(model_str=text, params={"verbose": -1})
    if booster is model:
        return rounded
    plain = copy.copy(model)
    plain._Booster = rounded
    if hasattr(model, "classes_") and np.asarray(model.classes_).dtype == bool:
        plain._classes = np.asarray(model.classes_).astype(np.int64)
    return plain


def _rounded_down(thresholds: str) -> str:
    import numpy as np

    exact = np.array(thresholds.split(), dtype=np.float64)
    near = exact.astype(np.float32)
    below = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)
    return " ".join(f"{value:.17g}" for value in below.astype(np.float64))


def _check_lightgbm(text: str) -> None:
    """What onnxmltools converts to something else without a word, told by the text of the model."""
    head = text.partition("\nTree=")[0]
    objective = next((line[len("objective=") :] for line in head.splitlines() if line.startswith("objective=")), "")
    sigmoid = re.search(r"sigmoid:(\S+)", objective)
    kinds = re.findall(r"^decision_type=(.*)$", text, re.MULTILINE)
    if "average_output" in head.splitlines():
        raise _unsupported("LightGBM", "random forests")
    if objective.startswith("multiclassova"):
        raise _unsupported("LightGBM", "the objective multiclassova")
    if sigmoid and float(sigmoid[1]) != 1:
        raise _unsupported("LightGBM", f"sigmoid {sigmoid[1]}")
    if re.search(r"^is_linear=1$", text, re.MULTILINE):
        raise _unsupported("LightGBM", "linear trees")
    # Bits 2 and 3 of a split's kind: what counts as missing (0 nothing, 1 zero, 2 not a number).
    if any(int(each) >> 2 & 3 == 1 for line in kinds for each in line.split()):
        raise _unsupported("LightGBM", "zero_as_missing")


def _unsupported(library: str, what: str) -> EngineError:
    return EngineError(
        f"{library} models with {what} cannot be converted to ONNX.", field="exporter", code="unsupported"
    )
