"""What a PMML document says it is, read as data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from engine.formats import signature
from engine.scan import xml_text

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_NAMESPACE = "http://www.dmg.org/PMML-4_"
_AROUND = {"Header", "MiningBuildTask", "DataDictionary", "TransformationDictionary", "Extension"}
_MOST_VALUES = 1000
_V2 = {"double": "FP64", "float": "FP32", "integer": "INT64", "string": "BYTES"}


def read(path: Path) -> Element:
    """The root element. EngineError(field="file") for what is no PMML 4 document, or no safe one."""
    if path.stat().st_size > xml_text.MAX_BYTES:
        raise _wrong(f"The PMML file is larger than {xml_text.MAX_BYTES // 2**20} MB.")
    root, space = xml_text.parse(path.read_bytes(), "The PMML file")
    if root.tag != "PMML" or not space.startswith(_NAMESPACE):
        raise _wrong("This is not a PMML 4 document.")
    return root


def model_of(root: Element) -> Element:
    """The one model element."""
    found = [each for each in root if each.tag not in _AROUND]
    if len(found) != 1:
        raise _wrong(f"The PMML file has {len(found)} models instead of one.")
    return found[0]


def data_fields(root: Element) -> dict[str, Element]:
    """DataField elements by name."""
    found = {each.get("name", ""): each for each in root.iterfind("DataDictionary/DataField")}
    if "" in found or not found:
        raise _wrong("The PMML file's DataDictionary names no fields.")
    return found


def active_fields(model: Element) -> list[str]:
    """Names of the fields the model reads, in order."""
    return [
        each.get("name", "")
        for each in model.iterfind("MiningSchema/MiningField")
        if each.get("usageType", "active") == "active"
    ]


def target_field(model: Element) -> str | None:
    """Name of what the model predicts; None when it does not say."""
    for each in model.iterfind("MiningSchema/MiningField"):
        if each.get("usageType") in {"target", "predicted"}:
            return each.get("name")
    return None


def class_labels(root: Element) -> list[Any] | None:
    """Class names in the order of the DataDictionary, whole numbers as numbers; None for a regression."""
    model, fields = model_of(root), data_fields(root)
    target = fields.get(target_field(model) or "")
    if model.get("functionName") != "classification" or target is None:
        return None
    texts = [each.get("value", "") for each in target.iterfind("Value") if each.get("property", "valid") == "valid"]
    return typed_labels(texts, target.get("dataType", "string"))


def typed_labels(texts: list[str], data_type: str) -> list[Any]:
    """Labels as JSON values: int for whole numbers of a numeric field, else the text itself."""
    if data_type == "string" or not texts:
        return texts
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return texts
    return [int(number) for number in numbers] if all(number.is_integer() for number in numbers) else texts


def check_pmml_file(path: Path) -> dict[str, Any]:
    """{"signature", "values", "producer", "version", "model"} of a file; call it inside the sandbox only.

    values: {field: what it may be} for those active fields that the DataDictionary lists values of.
    """
    root = read(path)
    model, fields = model_of(root), data_fields(root)
    active = active_fields(model)
    if not active or any(name not in fields for name in active):
        raise _wrong("The PMML model reads fields that the DataDictionary does not have.")
    inputs = [signature.tensor(name, _V2.get(fields[name].get("dataType", ""), "BYTES"), [-1]) for name in active]
    labels = class_labels(root)
    kind = "FP64" if labels is None else "INT64" if all(isinstance(each, int) for each in labels) else "BYTES"
    application = root.find("Header/Application")
    parts = [] if application is None else [application.get("name", ""), application.get("version", "")]
    listed = {name: [each.get("value", "") for each in fields[name].iterfind("Value")] for name in active}
    return {
        "values": {name: values[:_MOST_VALUES] for name, values in listed.items() if values},
        "signature": {"inputs": inputs, "outputs": [signature.tensor(target_field(model) or "prediction", kind, [-1])]},
        "producer": " ".join(part for part in parts if part)[:100],
        "version": root.get("version", "")[:10],
        "model": model.tag[:60],
    }


def _wrong(message: str) -> EngineError:
    return EngineError(message, field="file", code="pmml")
