"""The optimization lab on a small zoo: what its search recommends, beside its parent, what is asked, and peers.

The zoo is trained from packaged data (see optimize_parts/zoo.py) and kept in --folder. Each model gets one search under
"lose at most 1 point", with its training rows; the largest one a second without. Then the front is measured again in
fresh processes: the order of points that differ by more than a tenth has to hold.

With --peers, the optimizers of others that `bench/optimize_peers/install.py` put there choose for the same models, with
the same rows and minutes, and what they choose is measured like ours. --quick leaves them out.

    python bench/optimize.py [--quick] [--only LIST] [--peers DIR] [--folder DIR] [--environments DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from bench.optimize_parts import peers, zoo  # noqa: E402
from bench.optimize_parts.search import Search  # noqa: E402
from engine.evaluate.tasks import profile  # noqa: E402
from engine.export import environments  # noqa: E402
from engine.optimize.lab.goal import Goal  # noqa: E402
from engine.optimize.lab.trial import Trial  # noqa: E402

APART = 0.1
MAX_LOSS = 1.0


@dataclass(frozen=True)
class Asked:
    """What the recommended variant is to reach: times the parent's speed, share of its size, points lost."""

    speed: float
    size: float
    loss: float = MAX_LOSS


REACH = {
    "resnet18": Asked(12, 0.07),
    "cnn": Asked(6, 0.08),
    "mlp": Asked(1.9, 0.16),
}
WITHOUT_TRAINING = {"resnet18": Asked(4.8, 1.0, 0.5)}


class Bench:
    def __init__(self, folder: Path, kept: Path, minutes: float, quick: bool) -> None:
        self.folder, self.kept, self.minutes, self.quick = folder, kept, minutes, quick

    def python(self, name: str) -> Path:
        return environments.prepare(ROOT / "locks" / f"{name}.txt", self.kept)

    def search(self, subject: zoo.Subject, goal: Goal, kind: str, training: bool) -> Search:
        return Search(subject, goal, self.folder / "searches" / f"{subject.name}-{kind}", self.python, training)

    def peers(self, subject: zoo.Subject, homes: dict[str, Path]) -> list[dict[str, Any]]:
        """What each peer chooses for it."""
        search = self.search(subject, Goal(max_loss=MAX_LOSS), "peers", training=True)
        return peers.compare(search, homes, self.minutes)

    def subject(self, subject: zoo.Subject, training: bool) -> dict[str, Any]:
        """One search, and its front measured again."""
        asked = (REACH if training else WITHOUT_TRAINING).get(subject.name)
        goal = Goal(minutes=self.minutes, max_loss=asked.loss if asked else MAX_LOSS, trials=4 if self.quick else 60)
        search = self.search(subject, goal, "training" if training else "onnx", training)
        found = search.run()
        by_key = {trial.key: trial for trial in search.trials}
        best = by_key.get(found.recommended or "")
        front = [by_key[key] for key in found.front]
        return {
            "model": subject.name,
            "training": training,
            "seconds": search.seconds,
            "states": {
                state: sum(t.state == state for t in search.trials) for state in ("measured", "refused", "failed")
            },
            "recommended": _figures(search, best) if best else None,
            "reasons": [str(reason) for reason in found.reasons],
            "relax": [str(words) for words in found.relax],
            "asked": vars(asked) if asked else None,
            "reached": asked is None or (best is not None and _reached(search, best, asked)),
            "inversions": _inversions(search, front),
            "front": [_figures(search, trial) for trial in front],
            "trials": [json.loads(trial.model_dump_json()) for trial in search.trials],
        }


def _figures(search: Search, trial: Trial) -> dict[str, Any]:
    assert trial.measured is not None and trial.judged is not None
    return {
        "recipe": trial.recipe.label,
        "steps": [step.model_dump(mode="json") for step in trial.recipe.steps],
        **search.figures(trial.measured, trial.judged),
    }


def _reached(search: Search, best: Trial, asked: Asked) -> bool:
    figures = _figures(search, best)
    return bool(figures["speed"] >= asked.speed and figures["size"] <= asked.size and figures["loss"] <= asked.loss)


def _inversions(search: Search, front: list[Trial]) -> dict[str, int]:
    """Pairs of the front whose ratios differ by more than a tenth, and those of them that a second measurement in fresh
    processes puts the other way round."""
    again = {trial.key: search.measure(search.variant(trial)).ratio for trial in front}
    pairs = inverted = 0
    for first in front:
        for second in front:
            assert first.measured is not None and second.measured is not None
            if first.measured.ratio * (1 + APART) < second.measured.ratio:
                pairs += 1
                inverted += again[first.key] >= again[second.key]
    return {"pairs": pairs, "inverted": inverted}


def show(rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    print(f"{'model':22}{'speed':>8}{'size':>7}{'lost':>7}{'at most':>9}{'min':>6}{'tried':>7}{'reached':>9}  recipe")
    for row in rows:
        name = row["model"] + ("" if row["training"] else ", no training")
        best, tried = row["recommended"], sum(row["states"].values())
        if best is None:
            print(
                f"{name:22}{'–':>8}{'–':>7}{'–':>7}{'–':>9}{row['seconds'] / 60:>6.1f}{tried:>7}  {row['reasons'][0]}"
            )
            continue
        reached = "–" if row["asked"] is None else "yes" if row["reached"] else "NO"
        print(
            f"{name:22}{best['speed']:>7.2f}×{best['size']:>7.1%}{best['loss']:>7.2f}{best['loss_upper']:>9.2f}"
            f"{row['seconds'] / 60:>6.1f}{tried:>7}{reached:>9}  {best['recipe']}"
        )
    pairs, inverted = (sum(row["inversions"][name] for row in rows) for name in ("pairs", "inverted"))
    print(f"\nmeasured again: {inverted} of {pairs} pairs of the fronts the other way round (asked 0)")
    print(", ".join(f"{name} {value}" for name, value in facts.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--quick", action="store_true", help="four trials of the MLP, under a minute once it is trained"
    )
    parser.add_argument("--only", metavar="LIST", help=f"some of {','.join(zoo.NAMES)}")
    parser.add_argument("--minutes", type=float, default=10, help="of each search (default: 10)")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="where the peers were installed")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the zoo and variants are kept")
    parser.add_argument("--environments", type=Path, metavar="DIR", help="where prepared environments are kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="slipway-bench-"))
    bench = Bench(folder, options.environments or folder / "environments", options.minutes, options.quick)
    names = ("mlp",) if options.quick else tuple((options.only or ",".join(zoo.NAMES)).split(","))
    homes = {} if options.quick else peers.installed(options.peers)
    rows, beside = [], []
    for subject in zoo.make(folder / "zoo", bench.python("torch"), names):
        rows.append(bench.subject(subject, training=True))
        if subject.name in WITHOUT_TRAINING:
            rows.append(bench.subject(subject, training=False))
        beside += [peers.of_ours(row) for row in rows if row["model"] == subject.name]
        beside += bench.peers(subject, homes)
    facts = profile(1)
    show(rows, facts)
    if homes:
        peers.show(beside, MAX_LOSS)
    if options.json:
        found = {"bench": "optimize", "machine": facts, "rows": rows, "beside_peers": beside if homes else []}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
