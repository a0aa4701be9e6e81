"""`python -m conformance.models DIR`: writes every model as DIR/NAME.onnx or DIR/NAME/VERSION/model.onnx."""

from __future__ import annotations

import sys
from pathlib import Path

from conformance.models import plain, special
from conformance.models.build import T


def write_all(folder: Path) -> list[str]:
    """Write the models into `folder`, which is made when it is not there; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    single = {
        **{f"id-{name.lower()}": plain.identity(kind, ["N", "M"]) for name, kind in plain.KINDS.items()},
        "tiny": plain.classifier(),
        "add-sub": plain.add_sub(),
        "vector": plain.identity(T.FLOAT, ["N"]),
        "word": plain.identity(T.STRING, [1]),
        "empty": plain.empty(),
        "scalar": plain.scalar(),
        "infinite": plain.infinite(),
        "fragile": plain.fragile(),
        "slow": plain.slow(),
        "branches": special.branches(),
        "loop": special.loop(),
        "state": special.state(),
        "default": special.default(),
        "optional": special.optional(),
        "zipmap": special.zipmap(),
        "sequence": special.sequence(),
    }
    for name, data in single.items():
        (folder / f"{name}.onnx").write_bytes(data)
    for number in (1, 2, 10):
        place = folder / "versions" / str(number)
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.onnx").write_bytes(plain.version(number))
    place = folder / "external" / "1"
    place.mkdir(parents=True, exist_ok=True)
    data, weights = special.external("weights.bin")
    (place / "model.onnx").write_bytes(data)
    (place / "weights.bin").write_bytes(weights)
    return sorted([*single, "versions", "external"])


def main(arguments: list[str]) -> int:
    """Entry point; the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m conformance.models DIR", file=sys.stderr)
        return 2
    print(" ".join(write_all(Path(arguments[0]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
