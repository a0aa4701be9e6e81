"""XGBoost and LightGBM to ONNX by onnxmltools: one tree ensemble over a matrix `input`."""

from __future__ import annotations

import json
from typing import Any

from engine.errors import EngineError
from engine.evaluate.rows import Rows


def convert(model: Any, rows: Rows, opset: int | None) -> bytes:
    """A graph with a dynamic batch: `input` float32 (n, features), then labels and probabilities as plain tensors
    for a classifier, numbers (n, targets) otherwise. EngineError(code="unsupported") with onnxmltools' reason."""
    from onnxmltools import convert_lightgbm, convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    def types(width: int) -> list[tuple[str, Any]]:
        return [("input", FloatTensorType([None, width]))]

    try:
        if type(model).__module__.startswith("xgboost."):
            plain = _plain_xgboost(model)
            width = plain.get_booster().num_features()
            made = convert_xgboost(plain, initial_types=types(width), target_opset=opset)
        else:
            width = getattr(model, "booster_", model).num_feature()
            # Doubles are summed as floats in ONNX: groups of trees keep the difference from growing with their number.
            made = convert_lightgbm(model, initial_types=types(width), target_opset=opset, zipmap=False, split=100)
    except (RuntimeError, ValueError, NotImplementedError, KeyError, AttributeError) as error:
        raise EngineError(
            f"onnxmltools cannot convert this model: {str(error).split(chr(10))[0][:200]}",
            field="exporter",
            code="unsupported",
        ) from error
    return bytes(made.SerializeToString())


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
