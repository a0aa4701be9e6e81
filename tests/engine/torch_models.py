"""Run by the Python of the torch environment: trains small models and stores each as `mlflow.pytorch` does.

`python torch_models.py ROWS.npz OUT SITE`; SITE is the site-packages that has mlflow, after torch's own on the path.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path

OUT = Path(sys.argv[2])
sys.path.append(sys.argv[3])
(OUT / "absent").mkdir(parents=True)
(OUT / "absent" / "absent_code.py").write_text(
    "import torch\nclass Absent(torch.nn.Module):\n    def forward(self, x):\n        return x\n"
)
sys.path.append(str(OUT / "absent"))

import mlflow  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

torch.manual_seed(0)
torch.set_num_threads(1)
ROWS = np.load(sys.argv[1])
FLAT = (ROWS["X"].reshape(-1, 64) / 16).astype(np.float32)
PICTURES = FLAT.reshape(-1, 1, 8, 8)


class Branching(torch.nn.Module):
    """What tracing loses: the way depends on the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(64, 10)
        self.second = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() > 4000):
            return self.first(x)
        return self.second(x)


def network() -> torch.nn.Module:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, 10),
    )  # fmt: skip


def perceptron() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.GELU(), torch.nn.Linear(32, 10))


def trained(model: torch.nn.Module, x: np.ndarray) -> torch.nn.Module:
    inputs, labels = torch.from_numpy(x), torch.from_numpy(ROWS["y"])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model.eval()


def save(name: str, model: torch.nn.Module, x: np.ndarray, example: int = 4, **more: object) -> None:
    with torch.no_grad():
        signature = mlflow.models.infer_signature(x[:4], model(torch.from_numpy(x[:4])).numpy())
    mlflow.pytorch.save_model(
        model, str(OUT / name), signature=signature, input_example=x[:example], pip_requirements=["torch"], **more
    )


cnn, mlp = trained(network(), PICTURES), trained(perceptron(), FLAT)
save("program", cnn, PICTURES)
save("one-row", mlp, FLAT, example=1)
save("pickled", cnn, PICTURES, serialization_format="pickle")
save("script", torch.jit.script(mlp), FLAT, serialization_format="pickle")
save("branching", Branching().eval(), FLAT, serialization_format="pickle")
save("absent-class", importlib.import_module("absent_code").Absent(), FLAT, serialization_format="pickle")
save("main-class", Branching().eval(), FLAT, serialization_format="pickle", pickle_module=pickle)
save("weights", mlp, FLAT, serialization_format="pickle")
torch.save(mlp.state_dict(), OUT / "weights" / "data" / "model.pth")
print("cuda", torch.version.cuda)
