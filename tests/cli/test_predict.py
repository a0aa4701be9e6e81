"""V2 calls to a real inference server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slipway.cli import predict
from slipway.cli.errors import CliError
from tests.cli.conftest import Ran, run


def ask(serving: str, *args: object, code: int = 0, stdin: str = "") -> Ran:
    ran = run("endpoints", "predict", *args, "--serving", serving, url=serving, stdin=stdin)
    assert ran.code == code, ran
    return ran


def test_predict_finds_the_inputs_name_when_given_a_row_or_rows(serving: str) -> None:
    one = ask(serving, "tiny", "--data", "[0.5, 1, 2, 3]", "-o", "json").json
    assert one["outputs"][0]["name"] == "label" and one["outputs"][0]["shape"] == [1]
    two = ask(serving, "tiny", "--data", "[[0.5, 1, 2, 3], [3, 2, 1, 0]]")
    assert len(two.out.strip().splitlines()) == 3 and "label" in two.out and "answered by version" in two.err
    whole = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})
    assert ask(serving, "tiny", "--data", whole, "--key", "somebody").code == 0


def test_predict_reads_json_and_csv_files_when_given_them(serving: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text('{"a": [1, 2], "b": [10, 20]}')
    assert ask(serving, "two", "--file", rows, "-o", "json").json["outputs"][0]["data"] == [11, 22]
    table = tmp_path / "rows.csv"
    table.write_text("b,a\n10,1\n20,2\n")
    assert ask(serving, "two", "--csv", table, "-o", "json").json["outputs"][0]["data"] == [11, 22]
    for text in ("1,2,3,4\n4,3,2,1\n\n", "w,x,y,z\r\n1,2,3,4\r\n4,3,2,1"):
        found = ask(serving, "tiny", "--csv", "-", "-o", "json", stdin=text).json
        assert found["outputs"][0]["shape"] == [2]
    assert ask(serving, "text", "--csv", "-", "-o", "json", stdin="a,ü\n").json["outputs"][0]["data"] == ["a", "ü"]


@pytest.mark.parametrize(
    ("name", "args", "code", "text"),
    [
        ("tiny", ("--data", "[1, 2"), 7, "not JSON"),
        ("tiny", ("--data", "[[1, 2], [3]]"), 7, "one length"),
        ("tiny", ("--data", '{"y": [1]}'), 7, "no input “y”"),
        ("tiny", ("--data", "[1, 2, 3]"), 7, ""),
        ("tiny", ("--data", "[1, 2, 3, NaN]"), 7, ""),
        ("two", ("--data", "[1]"), 7, "several inputs"),
        ("nothing", ("--data", "[1]"), 5, "no such model"),
        ("../../metrics", ("--data", "[1]"), 5, ""),
        ("tiny", (), 2, "exactly one"),
        ("tiny", ("--data", "[1]", "--csv", "x.csv"), 2, "exactly one"),
        ("tiny", ("--csv", "absent.csv"), 2, "cannot be read"),
    ],
)
def test_predict_says_what_is_wrong_when_it_cannot_ask(
    serving: str, name: str, args: tuple[str, ...], code: int, text: str
) -> None:
    assert text in ask(serving, name, *args, code=code).err


@pytest.mark.parametrize(
    ("shape", "value", "expected"),
    [
        ([-1, 1], [1, 2, 3], [3, 1]),
        ([-1, 4], [1, 2, 3, 4], [1, 4]),
        ([-1], 5, [1]),
        ([-1, 2, 2], [[1, 2], [3, 4]], [1, 2, 2]),
        ([], 7, []),
    ],
)
def test_tensor_has_the_inputs_rank_when_rows_have_less(shape: list[int], value: object, expected: list[int]) -> None:
    made = predict.tensor({"name": "x", "shape": shape, "datatype": "FP32"}, value)
    assert made["shape"] == expected and len(made["data"]) == max(1, len(str(made["data"]).split(",")))


def test_csv_is_refused_when_rows_or_fields_do_not_fit() -> None:
    inputs = [{"name": "x", "shape": [-1, 2], "datatype": "FP32"}]
    for text in ("", "a,b", "1,2\n3", "1,2\n3,nan", "1,2\n3,four"):
        with pytest.raises(CliError):
            predict.csv_tensors(text, inputs)
