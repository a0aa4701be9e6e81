"""XGBoost and LightGBM to ONNX by onnxmltools: one tree ensemble over a matrix `input`."""

from __future__ import annotations

import json
from typing import Any

from engine.errors import EngineError
from engine.evaluate.rows import Rows

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
            booster = getattr(model, "booster_", model)
            options = {"zipmap": False, "split": _split(booster)}
            made = convert_lightgbm(model, initial_types=types(booster.num_feature()), target_opset=target, **options)
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


def _split(booster: Any) -> int | None:
    """Trees a node: LightGBM adds doubles, ONNX floats, and groups that are added as doubles keep the difference from
    growing with the number of trees. onnxmltools refuses to make one group."""
    trees = booster.best_iteration if booster.best_iteration > 0 else booster.num_trees()
    return _GROUP if trees > _GROUP else None


def _plain_xgboost(model: Any) -> Any:
    """The same trees in the form that onnxmltools reads without mistakes: features named f0, f1, ...; only the trees
    that predict; `multi:softprob` for its twin that only names the winner."""
    from engine.export.sources.xgboost_model import objective_of, wrapped

    booster = model.get_booster()
    kind = json.loads(booster.save_config())["learner"]["gradient_booster"]["name"]
    if kind != "gbtree":
        raise _unsupported(f"a '{kind}' booster (trees of kind gbtree can)")
    if "c" in (booster.feature_types or []):
        raise _unsupported("a booster with categorical features")
    best = booster.attr("best_iteration")
    booster = booster.copy() if best is None else booster[: int(best) + 1]
    booster.set_attr(best_iteration=None, best_score=None)
    booster.feature_names = None
    if objective_of(booster) == "multi:softmax":
        booster.set_param({"objective": "multi:softprob"})
    return wrapped(booster)


def _unsupported(what: str) -> EngineError:
    return EngineError(f"XGBoost's conversion to ONNX does not take {what}.", field="exporter", code="unsupported")
