"""Names the step of a scikit-learn pipeline after which its ONNX graph says something else."""

from __future__ import annotations

from typing import Any

from engine.errors import EngineError
from engine.evaluate import parity
from engine.evaluate.outputs import Outputs, feeds
from engine.evaluate.rows import Rows


def first_difference(estimator: Any, rows: Rows, opset: int | None, tolerance: float) -> str | None:
    """The first step whose output for `rows` differs by more than `tolerance` (as in `parity.compare`).

    Every beginning of the pipeline, steps[:1], steps[:2], ..., is converted on its own. The last step is named when
    all before it agree. None for what is no pipeline, and when a beginning that cannot be converted alone hides the
    place. Raises nothing: it explains a failure and must not become one.
    """
    from sklearn.pipeline import Pipeline

    if not isinstance(estimator, Pipeline):
        return None
    hidden = False
    for count, (name, step) in enumerate(estimator.steps[:-1], start=1):
        if step is None or step == "passthrough":
            continue
        try:
            same = _agrees(estimator[:count], rows, opset, tolerance)
        except Exception as error:
            # Converters raise whatever they like for a beginning that is no model of its own.
            print(f"steps up to '{name}' cannot be compared alone: {type(error).__name__}")
            hidden = True
            continue
        if not same:
            return str(name)
    return None if hidden else str(estimator.steps[-1][0])


def _agrees(beginning: Any, rows: Rows, opset: int | None, tolerance: float) -> bool:
    """Whether the graph of a fitted beginning transforms the rows as it does."""
    import numpy as np
    from scipy import sparse

    from engine.export.sources.scikit_learn import model_input
    from engine.export.to_onnx.scikit_learn import convert
    from engine.formats import signature
    from engine.scan import onnx_run, onnx_structure

    content = convert(beginning, rows, opset)
    described = signature.of_onnx(onnx_structure.parse(content))
    got = np.asarray(onnx_run.session(content).run(None, feeds(described, rows))[0]).reshape(len(rows), -1)
    wanted = beginning.transform(model_input(beginning, rows))
    wanted = np.asarray(wanted.todense() if sparse.issparse(wanted) else wanted).reshape(len(rows), -1)
    if wanted.dtype.kind in "OUS":
        return bool(wanted.shape == got.shape and np.all(wanted.astype(str) == got.astype(str)))
    try:
        said, meant = (Outputs(None, each.astype(np.float64)) for each in (got, wanted))
        return bool(parity.compare(meant, said, tolerance)["passed"])
    except EngineError:
        # Another shape is a difference.
        return False
