"""Rows of a data set: CSV with a header, parquet, or npz, read into features and a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EngineError

MAX_ROWS = 200_000
MAX_COLUMNS = 20_000
MAX_BYTES = 1024**3


@dataclass(frozen=True, slots=True)
class Rows:
    """columns: names of the features, in order. matrix: float32 (n, columns) when all are numbers, else None.
    table: {column: array (n,)} otherwise, numbers as float32 and the rest as text objects.
    y: the target (n,) as int64, float64 or text objects; None when the file has none."""

    columns: list[str]
    matrix: Any | None
    table: dict[str, Any] | None
    y: Any | None

    def __len__(self) -> int:
        if self.matrix is not None:
            return int(self.matrix.shape[0])
        return len(next(iter(self.table.values()))) if self.table else 0

    def column(self, name: str) -> Any:
        """One feature (n,). EngineError(field="rows") when there is no such column."""
        if name not in self.columns:
            raise _wrong(f"The rows have no column '{name[:60]}'.")
        if self.matrix is not None:
            return self.matrix[:, self.columns.index(name)]
        assert self.table is not None
        return self.table[name]

    def head(self, count: int) -> Rows:
        """The first `count` rows."""
        return self.take(slice(count))

    def without(self, names: list[str]) -> Rows:
        """The rows less some of their columns."""
        left = {name: self.column(name) for name in self.columns if name not in names}
        return of_columns(left, self.y)

    def take(self, which: Any) -> Rows:
        """The rows at a slice or an array of indices."""
        return Rows(
            self.columns,
            None if self.matrix is None else self.matrix[which],
            None if self.table is None else {name: values[which] for name, values in self.table.items()},
            None if self.y is None else self.y[which],
        )


def load(path: Path, target: str = "target", beside: Sequence[str] = ()) -> Rows:
    """Reads `path`; the kind of file is told by its content. beside: arrays of an npz with X that are columns
    too. EngineError(field="rows") when it is unusable or above the caps (200,000 rows, 20,000 columns, 1 GB)."""
    if path.stat().st_size > MAX_BYTES:
        raise _wrong("The data set is larger than 1 GB.")
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise _wrong("The data set is empty.")
    if head == b"PK\x03\x04":
        rows = _from_npz(path, target, beside)
    else:
        rows = from_frame(_parquet(path) if head == b"PAR1" else _csv(path), target)
    if not len(rows):
        raise _wrong("The data set has no rows.")
    if len(rows) > MAX_ROWS:
        raise _wrong(f"The data set has more than {MAX_ROWS:,} rows.")
    return rows


def save(rows: Rows, target: str, file: Path) -> None:
    """Writes them so that `load` reads them back: as parquet, or what came as an npz's X as npz again."""
    import numpy as np
    import pandas

    if rows.matrix is not None and rows.columns == _places(len(rows.columns)):
        truth = {} if rows.y is None else {"y": rows.y.astype(str) if rows.y.dtype == object else rows.y}
        with file.open("wb") as stream:  # given a name, numpy would add its own ending
            np.savez(stream, allow_pickle=False, X=rows.matrix, **truth)
        return
    columns = {name: rows.column(name) for name in rows.columns}
    if rows.y is not None:
        columns[target] = rows.y
    pandas.DataFrame(columns).to_parquet(file)


def _places(count: int) -> list[str]:
    """The names of features that have none."""
    return [f"x{place}" for place in range(count)]


def from_frame(frame: Any, target: str | None = "target") -> Rows:
    """Rows of a pandas DataFrame."""
    frame.columns = [str(name) for name in frame.columns]
    if len(set(frame.columns)) != len(frame.columns):
        raise _wrong("Two columns have the same name.")
    if len(frame.columns) > MAX_COLUMNS:
        raise _wrong(f"The data set has more than {MAX_COLUMNS:,} columns.")
    y = _target(frame.pop(target)) if target is not None and target in frame.columns else None
    columns = list(frame.columns)
    if not columns:
        raise _wrong("The data set has no feature columns.")
    return of_columns({name: _values(frame[name]) for name in columns}, y)


def of_columns(arrays: dict[str, Any], y: Any) -> Rows:
    """Rows of features (n,) by their names: one matrix where all are float32."""
    import numpy as np

    columns = list(arrays)
    if all(array.dtype == np.float32 for array in arrays.values()):
        return Rows(columns, np.column_stack(list(arrays.values())), None, y)
    return Rows(columns, None, arrays, y)


def _csv(path: Path) -> Any:
    import pandas

    try:
        with path.open("rb") as file:
            if b"\x00" in file.read(65536):
                raise _wrong("The data set is neither CSV, parquet nor npz.")
        return pandas.read_csv(path, nrows=MAX_ROWS + 1, low_memory=False)
    except (ValueError, UnicodeError, pandas.errors.ParserError) as error:
        raise _wrong("The CSV file cannot be read: it needs a header and as many fields in each line.") from error


def _parquet(path: Path) -> Any:
    import pandas
    import pyarrow

    try:
        return pandas.read_parquet(path)
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        raise _wrong("The parquet file cannot be read.") from error


def _from_npz(path: Path, target: str, beside: Sequence[str]) -> Rows:
    """Arrays `X` (n, ...) and `y` (n,), with those named `beside` as columns more; or one array named like each."""
    import zipfile

    import numpy as np
    import pandas

    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > 2 * MAX_BYTES:
                raise _wrong("The npz file unpacks to more than 2 GB.")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise _wrong("The npz file cannot be read (arrays of objects are not accepted).") from error
    x = arrays.get("X", arrays.get("x"))
    if x is None:
        if any(array.ndim != 1 for array in arrays.values()) or len({len(a) for a in arrays.values()}) != 1:
            raise _wrong("An npz file needs an array X and optionally y, or columns of one length.")
        return from_frame(pandas.DataFrame(arrays), target)
    if x.ndim < 2 or x.dtype.kind not in "fiub":
        raise _wrong("X must hold numbers, one row for each example.")
    flat = np.ascontiguousarray(x.reshape(len(x), -1), dtype=np.float32)
    y = arrays.get("y", arrays.get(target))
    if y is not None and (y.ndim != 1 or len(y) != len(x)):
        raise _wrong("y must have one value for each row of X.")
    names = _places(flat.shape[1])
    truth = None if y is None else _target(pandas.Series(y))
    more = {name: arrays[name] for name in beside if name in arrays and name not in ("X", "x", "y", target)}
    if not more:
        return Rows(names, flat, None, truth)
    if any(array.ndim != 1 or len(array) != len(x) for array in more.values()):
        raise _wrong("A column beside X must have one value for each row of X.")
    told = {name: _values(pandas.Series(array)) for name, array in more.items()}
    return of_columns({**dict(zip(names, flat.T, strict=True)), **told}, truth)


def _values(series: Any) -> Any:
    """float32 for numbers and booleans, text objects for the rest; a missing text is ""."""
    import numpy as np
    import pandas

    if pandas.api.types.is_numeric_dtype(series) or pandas.api.types.is_bool_dtype(series):
        return series.to_numpy(dtype=np.float32, na_value=np.nan)
    return series.astype("object").where(series.notna(), "").map(str).to_numpy(dtype=object)


def _target(series: Any) -> Any:
    import numpy as np
    import pandas

    if series.isna().any():
        raise _wrong("The target column has missing values.")
    if pandas.api.types.is_bool_dtype(series) or pandas.api.types.is_integer_dtype(series):
        return series.to_numpy(dtype=np.int64)
    if pandas.api.types.is_float_dtype(series):
        return series.to_numpy(dtype=np.float64)
    return series.map(str).to_numpy(dtype=object)


def _wrong(message: str) -> EngineError:
    return EngineError(message, field="rows", code="rows")
