"""A whole search on one model, in this process: what the workers do with jobs, one trial after the other."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.optimize_parts.zoo import Subject
from engine import sandbox
from engine.errors import EngineError
from engine.optimize.lab.conclude import Conclusion, conclude
from engine.optimize.lab.goal import Goal
from engine.optimize.lab.plan import next_recipes
from engine.optimize.lab.promise import quality_breach
from engine.optimize.lab.state import Proposal
from engine.optimize.lab.trial import Judgement, Measured, Survey, Trial

LIMITS = sandbox.Limits(seconds=900, memory_mb=8192)


class Search:
    """`python` gives the interpreter of an environment by name. Variants stay under `folder` by their recipe's key."""

    def __init__(
        self, subject: Subject, goal: Goal, folder: Path, python: Callable[[str], Path], training: bool
    ) -> None:
        self.subject, self.goal, self.folder, self.python = subject, goal, folder, python
        self.learn = {"training" if training else "calibration": subject.train}
        self.params = {"task": subject.task, "target": subject.target, "labels": subject.labels, "seed": goal.seed}
        self.trials: list[Trial] = []
        self.seconds = 0.0
        shutil.rmtree(folder, ignore_errors=True)  # what an earlier search made would cost this one no time
        (folder / "variants").mkdir(parents=True)

    def run(self) -> Conclusion:
        """Tries until the plan has nothing more or the goal's minutes are over."""
        began = time.monotonic()
        base = self._task("engine.optimize.tasks:survey", model=self.subject.model).value
        survey = Survey(**base, calibration=True, training="training" in self.learn)
        end = began + 60 * self.goal.minutes
        while proposals := next_recipes(self.goal, survey, self.trials, end - time.monotonic()):
            for proposal in proposals:
                if time.monotonic() > end:
                    break
                trial = self._try(proposal)
                self.trials.append(trial)
                self._say(trial)
        self.seconds = time.monotonic() - began
        return conclude(self.goal, self.baseline(), self.trials)

    def baseline(self) -> Measured:
        """What the search began with; times are beside themselves."""
        size = self.subject.model.stat().st_size
        return Measured(p50_ms=1, p95_ms=1, p99_ms=1, size_bytes=size)

    def variant(self, trial: Trial) -> Path:
        return self.folder / "variants" / f"{trial.key}.onnx"

    def _try(self, proposal: Proposal) -> Trial:
        began = time.monotonic()
        known: dict[str, Any] = {"recipe": proposal.recipe, "why": proposal.why}
        try:
            model = self._make(proposal)
            judged = self.judge(model)
            known |= {"judged": judged, "size_bytes": model.stat().st_size}
            reason = quality_breach(self.goal, judged)
            if reason:
                return Trial(**known, state="refused", reason=str(reason), seconds=time.monotonic() - began)
            found = self.measure(model)
            return Trial(**known, state="measured", measured=found, seconds=time.monotonic() - began)
        except EngineError as error:
            return Trial(**known, state="failed", reason=error.message, seconds=time.monotonic() - began)

    def judge(self, model: Path) -> Judgement:
        """Quality beside the model that the search began with, whose answers are kept."""
        known = self.folder / "answers.npz"
        inputs = {**self._beside(model), **({"answers": known} if known.exists() else {})}
        made = self._task("engine.evaluate.tasks:judge", {"keep": not known.exists()}, **inputs)
        if made.value["kept"]:
            shutil.copyfile(made.files / "answers.npz", known)
        return Judgement.model_validate(made.value)

    def measure(self, model: Path, rounds: int = 7) -> Measured:
        """Cost beside the model that the search began with."""
        params = {"rounds": rounds, "threads": self.goal.threads, "batch": self.goal.batch, "quality": False}
        value = self._task("engine.evaluate.tasks:measure", params, **self._beside(model)).value
        return Measured(
            **{f"{name}_ms": value["latency_ms"][name] for name in ("p50", "p95", "p99")},
            ratio=value["ratio_to_reference"],
            ratio_low=value["ratio_low"],
            ratio_high=value["ratio_high"],
            throughput=value["throughput"],
            size_bytes=value["size_bytes"],
            peak_memory_mb=value["peak_memory_mb"],
            profile=value["profile"],
        )

    def figures(self, measured: Measured, judged: Judgement) -> dict[str, float]:
        """As the tables show them: times the parent's speed, share of its size, points lost."""
        return {
            "speed": measured.speedup,
            "size": measured.size_bytes / self.baseline().size_bytes,
            "loss": judged.loss,
            "loss_upper": judged.loss_upper,
            "baseline": judged.baseline,
        }

    def _beside(self, model: Path) -> dict[str, Path]:
        return {"model": model, "reference": self.subject.model, "rows": self.subject.test}

    def _make(self, proposal: Proposal) -> Path:
        current = self.subject.model
        for (environment, part), prefix in zip(proposal.recipe.stretches(), proposal.recipe.prefixes(), strict=True):
            target = self.folder / "variants" / f"{prefix.key}.onnx"
            if not target.exists():
                steps = {"steps": [step.model_dump(mode="json") for step in part.steps]}
                inputs = {"model": current, "original": self.subject.model, **self.learn}
                python = self.python(environment) if environment else None
                made = self._task("engine.optimize.tasks:make", steps, python, **inputs)
                shutil.copyfile(made.files / "model.onnx", target.with_suffix(".part"))
                target.with_suffix(".part").replace(target)
            current = target
        self._task("engine.scan.tasks:check_onnx", file=current)
        return current

    def _task(self, name: str, params: dict[str, Any] | None = None, python: Path | None = None, **inputs: Path) -> Any:
        return sandbox.run(
            name,
            params={**self.params, **(params or {})},
            inputs=inputs,
            scratch=self.folder / "scratch",
            limits=LIMITS,
            python=python,
        )

    def _say(self, trial: Trial) -> None:
        cost = trial.measured
        found = (
            f"{cost.speedup:.2f}× {cost.size_bytes / self.subject.model.stat().st_size:.0%}" if cost else trial.reason
        )
        loss = f"lost {trial.judged.loss:.2f}," if trial.judged else ""
        text = f"  {self.subject.name}: {trial.recipe.label} ({trial.why}): {loss} {found} [{trial.seconds:.0f} s]"
        print(text, file=sys.stderr, flush=True)
