"""scikit-learn to ONNX by skl2onnx."""

from __future__ import annotations

from typing import Any

from engine.errors import EngineError
from engine.evaluate.rows import Rows

# scikit-learn's pattern of words, and the same for the regular expressions of ONNX Runtime, whose \w is ASCII.
_USUAL_WORDS = r"(?u)\b\w\w+\b"
_WORDS = r"[\p{L}\p{N}_]{2,}"


def convert(estimator: Any, rows: Rows, opset: int | None) -> bytes:
    """One graph with a dynamic batch: a matrix input `input` for numbers, one input a column otherwise.
    EngineError(code="unsupported") naming what skl2onnx has no converter for."""
    from skl2onnx import to_onnx
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
    from sklearn.base import is_classifier
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    text = _text_options(estimator)
    wanted: dict[Any, Any] = {CountVectorizer: text, TfidfVectorizer: text}
    if is_classifier(estimator):
        wanted[id(estimator)] = {"zipmap": False}
    try:
        model = to_onnx(estimator, initial_types=_types(estimator, rows), options=wanted, target_opset=opset)
    except (MissingConverter, MissingShapeCalculator) as error:
        raise EngineError(
            f"skl2onnx has no converter for a part of this model: {str(error).split(chr(10))[0][:200]}",
            field="exporter",
            code="unsupported",
        ) from error
    return bytes(model.SerializeToString())


def _text_options(estimator: Any) -> dict[str, str]:
    """How skl2onnx is to write the vectorizers of texts."""
    from sklearn.feature_extraction.text import CountVectorizer

    # ONNX Runtime takes the C locale everywhere; without this it asks the machine for en_US.
    options = {"locale": "C"}
    parts = [estimator, *estimator.get_params(deep=True).values()]
    vectorizers = [each for each in parts if isinstance(each, CountVectorizer)]
    if all(each.analyzer == "word" and each.token_pattern == _USUAL_WORDS for each in vectorizers):
        # skl2onnx takes the usual pattern for ASCII words of any length: "café" falls apart, and a word of one letter
        # comes between the two of a pair.
        options["tokenexp"] = _WORDS
    return options


def _types(estimator: Any, rows: Rows) -> list[tuple[str, Any]]:
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    if rows.matrix is not None and not _selects_columns(estimator):
        return [("input", FloatTensorType([None, rows.matrix.shape[1]]))]
    if rows.matrix is None and len(rows.columns) == 1:
        return [("input", StringTensorType([None, 1]))]
    names = list(getattr(estimator, "feature_names_in_", rows.columns))
    return [
        (name, (StringTensorType if rows.column(name).dtype == object else FloatTensorType)([None, 1]))
        for name in names
    ]


def _selects_columns(estimator: Any) -> bool:
    """Whether its first step picks columns by name, so that they must arrive one by one."""
    from sklearn.compose import ColumnTransformer

    first = estimator.steps[0][1] if hasattr(estimator, "steps") else estimator
    return isinstance(first, ColumnTransformer)
