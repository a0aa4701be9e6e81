"""Trains one model of the zoo and writes it as ONNX, with a free number of rows. Run by an interpreter that has torch:

python train.py NAME TRAIN.npz TEST.npz MODEL.onnx
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """ResNet's basic block."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after))
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class TwoTowers(nn.Module):
    """A rating: the product of what is learned of a user and of an item, biases, and a small network over both."""

    def __init__(self, users: int, items: int, mean: float, width: int = 64) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, width), nn.Embedding(items, width)
        self.user_bias, self.item_bias = nn.Embedding(users, 1), nn.Embedding(items, 1)
        self.over = nn.Sequential(
            nn.Linear(2 * width, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 1)
        )
        self.mean = mean
        for each in (self.users, self.items):
            nn.init.normal_(each.weight, std=0.05)
        for each in (self.user_bias, self.item_bias):
            nn.init.zeros_(each.weight)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        a, b = self.users(user), self.items(item)
        rating = (a * b).sum(1) + self.user_bias(user)[:, 0] + self.item_bias(item)[:, 0]
        return rating + self.over(torch.cat([a, b], 1))[:, 0] + self.mean


def mlp() -> nn.Module:
    layers = [nn.Linear(64, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.Linear(512, 10))


def cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if after == 64 else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(2048, 512), nn.ReLU(), nn.Linear(512, 10))


def resnet18() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(1, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    for before, after, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [Block(before, after, stride), Block(after, after, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def news() -> nn.Module:
    return nn.Sequential(
        nn.Linear(2000, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 5)
    )


@dataclass(frozen=True)
class Plan:
    """How a model is trained. shift: pictures are moved by up to a pixel, except in the last two epochs."""

    build: Callable[[], nn.Module] | None
    epochs: int
    rate: float = 2e-3
    batch: int = 64
    decay: float = 1e-2
    shift: bool = False


PLANS = {
    "mlp": Plan(mlp, 40),
    "cnn": Plan(cnn, 12, shift=True),
    "resnet18": Plan(resnet18, 6, shift=True),
    "news": Plan(news, 10),
    "ratings": Plan(None, 7, rate=4e-3, batch=512, decay=5e-2),
}


def load(path: Path) -> tuple[list[Tensor], Tensor]:
    """Inputs and the truth."""
    with np.load(path) as stored:
        if "X" in stored:
            return [torch.from_numpy(stored["X"])], torch.from_numpy(stored["y"])
        return [torch.from_numpy(stored[name]) for name in ("user", "item")], torch.from_numpy(stored["rating"])


def loss_of(given: Tensor, truth: Tensor) -> Tensor:
    return F.mse_loss(given, truth) if truth.is_floating_point() else F.cross_entropy(given, truth)


def shifted(pictures: Tensor) -> Tensor:
    """Each eighth of a batch is moved its own way."""
    moved = []
    for part in pictures.split(8):
        down, right = torch.randint(-1, 2, (2,)).tolist()
        moved.append(torch.roll(F.pad(part, (1, 1, 1, 1)), (down, right), (2, 3))[:, :, 1:-1, 1:-1])
    return torch.cat(moved)


def train(model: nn.Module, plan: Plan, inputs: list[Tensor], truth: Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=plan.decay)
    # A last batch of one row would stop batch normalization.
    batches = len(truth) // plan.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=plan.epochs * batches)
    model.train()
    for epoch in range(plan.epochs):
        order = torch.randperm(len(truth))
        for number in range(batches):
            chosen = order[number * plan.batch : (number + 1) * plan.batch]
            given = [each[chosen] for each in inputs]
            if plan.shift and epoch < plan.epochs - 2:
                given = [shifted(each) for each in given]
            optimizer.zero_grad()
            loss_of(model(*given), truth[chosen]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def judged(model: nn.Module, inputs: list[Tensor], truth: Tensor) -> str:
    with torch.no_grad():
        given = model(*inputs)
    if truth.is_floating_point():
        return f"rmse {F.mse_loss(given, truth).sqrt().item():.4f}"
    return f"accuracy {(given.argmax(1) == truth).float().mean().item():.4f}"


def export(model: nn.Module, inputs: list[Tensor], target: Path) -> None:
    """As models are exported in practice, with the number of rows left free; whole or not at all."""
    names = ["user", "item"] if len(inputs) == 2 else ["input"]
    partial = target.with_suffix(".partial")
    torch.onnx.export(
        model,
        tuple(each[:2] for each in inputs),
        str(partial),
        input_names=names,
        output_names=["output"],
        dynamic_axes={name: {0: "batch"} for name in (*names, "output")},
        opset_version=17,
        dynamo=False,
    )
    partial.replace(target)


def main() -> None:
    name, *paths = sys.argv[1:]
    train_file, test_file, target = map(Path, paths)
    torch.manual_seed(0)
    # One thread: the same model on every machine, and no slower for networks this small on a busy one.
    torch.set_num_threads(1)
    plan, (inputs, truth) = PLANS[name], load(train_file)
    sizes = [int(each.max()) + 1 for each in inputs]
    if plan.build is None:
        tested, _ = load(test_file)
        sizes = [max(size, int(each.max()) + 1) for size, each in zip(sizes, tested, strict=True)]
    model = plan.build() if plan.build else TwoTowers(*sizes, float(truth.mean()))
    began = time.perf_counter()
    train(model, plan, inputs, truth)
    print(f"{name}: {judged(model, *load(test_file))}, {time.perf_counter() - began:.1f} s", flush=True)
    export(model, inputs, target)


if __name__ == "__main__":
    main()
