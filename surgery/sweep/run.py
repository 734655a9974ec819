"""`lostattn sweep`: every plan of the grids on one loaded model, all on the same items."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...patches.plan import Plan
from ...serving.disk import disk_errors, write_json
from ...serving.evaluation.rate import Rate, duration
from ...serving.evaluation.store import Answers, alone_in
from ...serving.evaluation.versus import Outcome, outcome_rows
from ...serving.judging.charts import need_matplotlib
from ...serving.judging.sides import describe_plan, folder_fingerprint
from ...serving.shape import model_shape
from ..calibrate import calibrate
from ..calibration import Calibration
from ..chat import Chat
from ..checkpoint.source import Source, resolve_source
from ..demo.builtin import builtin_examples
from ..evaluation.local import Encoded, answer_locally
from ..evaluation.run import EvalSettings, Say, answer_settings, circumstances, score_answers, task_facts
from ..evaluation.tasks import Asked
from ..planner import make_plan
from ..spec import PatchSpec
from .grid import Point, make_points, plan_key
from .ready import grids
from .swap import load_with_plan, swap_plan

ORIGINAL = "original"


@dataclass
class Work:
    """One sweep under way: the model is loaded when it is first needed, and then obeys one plan after the other."""

    source: Source
    asked: Sequence[Asked]
    out: Path
    settings: EvalSettings
    say: Say
    identity: str
    chat: Chat | None = None
    encoded: dict[str, Encoded] | None = None

    def answer(self, plan: Plan, name: str) -> list[Outcome] | None:
        """Evaluate one plan; None if another process is doing so."""
        return self._answer(plan, name, wait=False)

    def finish(self, plan: Plan, name: str) -> list[Outcome]:
        """The same, after waiting for that other process; what it left is answered here."""
        found = self._answer(plan, name, wait=True)
        assert found is not None
        return found

    def _answer(self, plan: Plan, name: str, wait: bool) -> list[Outcome] | None:
        key = plan_key(plan)
        with alone_in(self.out / ".locks" / key, wait) as alone:
            if not alone:
                return None
            return [self._task(one, plan, key, name) for one in self.asked]

    def _task(self, one: Asked, plan: Plan, key: str, name: str) -> Outcome:
        own = answer_settings(
            one, self.identity, plan=key, dtype=self.settings.dtype, device=self.settings.device.partition(":")[0],
            batch=self.settings.batch, versions=circumstances(self.settings)["versions"],
        )  # fmt: skip
        store, start = Answers(self.out / one.task.name / key, own, one.items), time.perf_counter()
        if not store.done:
            chat, encoded = self._ready(plan)
            rate = Rate(f"{one.task.name}, {name}", len(one.items), len(store.found), self.say)
            answer_locally(chat, encoded[one.task.name], store, one.max_tokens, self.settings.batch, rate)
        seconds = time.perf_counter() - start
        return score_answers(one, key, store, self.settings.harness, self.settings.seed, seconds)

    def _ready(self, plan: Plan) -> tuple[Chat, dict[str, Encoded]]:
        if self.chat is None or self.encoded is None:
            self.say(f"loading {self.source.name}")
            self.chat = load_with_plan(
                self.source.path, self.source.config, plan, self.settings.dtype, self.settings.device
            )
            self.encoded = {one.task.name: Encoded(self.chat.processor, one.items) for one in self.asked}
        elif self.chat.model.sap_plan != plan:
            swap_plan(self.chat.model, plan)
        return self.chat, self.encoded


def run_sweep(
    base: str,
    specs: Sequence[str],
    asked: Sequence[Asked],
    out: str | Path,
    settings: EvalSettings,
    calibration: Path | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Evaluate the original and every plan of the grids.

    Several calls with the same `out` share the work: each takes plans that no other has under way.

    Args:
        base: folder or Hub id of a plain checkpoint.
        specs: names of ready-made grids, or YAML files.
        calibration: measured heads; None measures them on built-in pictures when they are needed.

    Returns:
        The report, as in `out/sweep.json`; `sweep.md`, `sweep.html` and charts lie beside it, the answers in
        `out/TASK/PLAN.jsonl`. An interrupted call is continued by the next one.

    Raises:
        LostattnError: a grid, model or task that cannot be used, or answers of other settings in `out`.
    """
    from .report import write_sweep

    need_matplotlib()
    began = time.monotonic()
    for one in asked:
        one.task.rule(settings.harness)
    source, out = resolve_source(base), Path(out)
    measured = _Measured(source, out, settings, calibration, say)
    found = grids(specs, source.config)
    points = [p for grid in found for p in make_points(grid, source.config, source.path, measured.get)]
    notes = list(dict.fromkeys(n for g in found for n in g.notes) | dict.fromkeys(n for p in points for n in p.notes))
    for note in notes:
        say(f"note: {note}")
    plans = _plans(source, points)
    say(f"{len(points)} points of {len(found)} grid(s), {len(plans) - 1} different plans and the original")
    work = Work(source, asked, out, settings, say, folder_fingerprint(source.path))
    outcomes = _all(work, plans)
    report = {
        "base": source.name, "grids": [{"name": g.name, "layout": g.layout, "varying": g.varying} for g in found], "notes": notes,
        "points": [{"grid": p.grid, "key": p.key, "labels": dict(p.labels)} for p in points],
        "plans": {key: {"plan": describe_plan(plan), "sap": plan.to_json()} for key, (plan, _) in plans.items()},
        "tasks": task_facts(asked, outcomes), "results": outcome_rows(outcomes, settings.seed),
        **circumstances(settings), "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    write_sweep(report, out)
    say(f"done in {duration(time.monotonic() - began)}")
    return report


def _plans(source: Source, points: Sequence[Point]) -> dict[str, tuple[Plan, str]]:
    """Key -> plan and name for progress; the original first, equal plans once."""
    original = make_plan(PatchSpec(layers="none", heads="all"), source.config, source.path).plan
    found = {ORIGINAL: (original, ORIGINAL)}
    for number, point in enumerate(points, 1):
        name = f"{point.labels['mode']} layers {point.labels['layers']} heads {point.labels['heads']}"
        found.setdefault(point.key, (point.plan, f"point {number} of {len(points)} ({name})"))
    return found


def _all(work: Work, plans: Mapping[str, tuple[Plan, str]]) -> list[Outcome]:
    """What nobody else has under way first; then what others have left. Task by task, the original first."""
    found = {key: work.answer(plan, name) for key, (plan, name) in plans.items()}
    for key, (plan, name) in plans.items():
        if found[key] is None:
            work.say(f"waiting for another process: {name}")
            found[key] = work.finish(plan, name)
    rows = [rows for key in plans if (rows := found[key]) is not None]
    return [outcomes[i] for i in range(len(work.asked)) for outcomes in rows]


class _Measured:
    """Measured heads: a file that was given, or made once in `out` when first needed."""

    def __init__(self, source: Source, out: Path, settings: EvalSettings, given: Path | None, say: Say) -> None:
        self.source, self.settings, self.given, self.say = source, settings, given, say
        self.path = given or out / f"calibration-{folder_fingerprint(source.path)[:12]}.json"
        self.found: Calibration | None = None

    def get(self) -> Calibration:
        if self.found is None:
            if self.given is None and not self.path.exists():
                with alone_in(self.path.parent / ".locks" / "calibration", wait=True):
                    if not self.path.exists():
                        self._measure(self.path)
            self.found = Calibration.read(self.path)
        return self.found

    def _measure(self, path: Path) -> None:
        examples = builtin_examples()
        self.say(
            f"ranking heads on {len(examples)} built-in questions; --calibration FILE takes those of your own data"
        )
        chat = Chat.load(self.source.path, self.settings.dtype, self.settings.device)
        family = model_shape(self.source.config).family
        partial = path.with_name(f"{path.name}.partial")
        found = calibrate(chat, family, examples, "built-in pictures of handwritten digits", partial)
        with disk_errors(f"cannot write {path}"):
            write_json(path, found.to_json())
            partial.unlink()
