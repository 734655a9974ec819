"""The search: which KV groups can go, in which order, always by the measured effect of all of them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...patches.plan import Plan
from ...serving.data import Example
from ...serving.resume import Progress, fingerprint
from ..calibration import Calibration
from ..chat import Chat
from ..checkpoint.source import Source
from ..planner import make_plan
from ..spec import PatchSpec
from .choose import settings_of
from .frontier import Frontier, Group, Harm, Step
from .harm import harm_rows, mean_harm, original_answer
from .swap import Swap, groups_of, restrict, swapping

POINTS = 24  # of a frontier at most: a model with more groups lets several go at a step
MAX_NEW_TOKENS = 16
JOURNAL = 2  # what is asked for and in which order: a run is not continued by a program that asks otherwise
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Meter:
    """Joint harm of plans on the original's own answers, one question in memory at a time, resumable by question."""

    chat: Chat
    swap: Swap
    plan: Plan
    examples: Sequence[Example]
    answers: Sequence[Sequence[int]]
    journal: Journal

    def measure(self, choices: Sequence[Sequence[Group]]) -> list[Harm]:
        """Harm of every choice of groups."""
        plans = [restrict(self.plan, groups) for groups in choices]
        rows = [
            self.journal.row("harm", len(plans), harm_rows, self.chat, self.swap, plans, example, answer)
            for example, answer in zip(self.examples, self.answers, strict=True)
        ]
        return [mean_harm([row[i] for row in rows]) for i in range(len(plans))]


class Journal:
    """Finished rows of a computation that always asks for the same rows in the same order."""

    def __init__(self, progress: Progress, tick: Tick, total: int) -> None:
        self.progress, self.tick, self.total = progress, tick, total
        self.at = self.done = 0

    def row(self, name: str, weight: int, compute: Callable[..., Any], *arguments: Any) -> Any:
        """The next result, from an earlier run if that got so far; `weight` is its share of the work."""
        if self.at == len(self.progress.rows):
            self.progress.add({name: compute(*arguments)})
        self.at, self.done = self.at + 1, self.done + weight
        self.tick(self.done, self.total)
        return self.progress.rows[self.at - 1][name]


def every_group(
    source: Source, calibration: Calibration, mode: str, options: Mapping[str, str] | None = None, seed: int = 0
) -> Plan:
    """Preset `efficient` with every KV group of a checkpoint patched. Raises LostattnError for a mode it does not know."""
    spec = PatchSpec(preset="efficient", mode=mode, options=options or {}, seed=seed, layers="all", heads="all")
    return make_plan(spec, source.config, source.path, lambda: calibration).plan


def measure_groups(
    chat: Chat,
    plan: Plan,
    examples: Sequence[Example],
    *,
    joint: bool = True,
    width: int = 4,
    max_new_tokens: int = MAX_NEW_TOKENS,
    partial: Path | None = None,
    progress: Tick = lambda done, total: None,
) -> Frontier:
    """Measure every whole KV group of a plan alone and, if `joint`, search the frontier.

    The search is greedy with exchanges: of the groups that are left, the `width` that did least harm when last measured are
    tried on top of those that went already, and the one with the least joint KL goes. Then the `width` that cost most when
    they went are tried in exchange for the best that is left, and the best exchange is made if it lowers the joint KL.

    Args:
        chat: a plain model. plan: patches every group that may go.
        partial: file that takes what is finished, so that an interrupted run goes on where it stopped.
        progress: done and all measurements of one plan on one question.

    Raises:
        LostattnError: a patched model, an example that cannot be used, or a disk that refuses.
    """
    if chat.patched:
        raise LostattnError("groups are measured on the plain model, and this one is patched: give its original")
    groups = groups_of(plan)
    settings = settings_of(plan)
    total = len(examples) * (1 + _measurements(len(groups), width if joint else 0))
    what = {
        "journal": JOURNAL,
        "settings": dict(settings),
        "levels": plan.to_json().get("levels", {}),
        "groups": groups,
        "joint": joint,
        "width": width,
        "max_new_tokens": max_new_tokens,
    }
    journal = Journal(Progress(partial, fingerprint(chat.model, examples, what)), progress, total)
    answers = [journal.row("answer", 1, original_answer, chat, e, max_new_tokens) for e in examples]
    with swapping(chat.model, plan) as swap:
        meter = Meter(chat, swap, plan, examples, answers, journal)
        alone = dict(zip(groups, meter.measure([[g] for g in groups]), strict=True))
        steps = search(meter.measure, alone, width) if joint else ()
    return Frontier(settings, plan.kv_groups, len(examples), max_new_tokens, alone, tuple(steps))


def search(
    measure: Callable[[Sequence[Sequence[Group]]], Sequence[Harm]], alone: dict[Group, Harm], width: int
) -> list[Step]:
    """Let all groups go, the least harmful first. `measure` tells the joint harm of several choices of groups."""
    stale, gone, steps = {g: h.kl for g, h in alone.items()}, dict[Group, float](), list[Step]()
    stride, now = _stride(len(alone)), 0.0
    while stale:
        tried = _least(stale, width)
        result = dict(zip(tried, measure([[*gone, g] for g in tried]), strict=True))
        stale |= {g: h.kl - now for g, h in result.items()}
        best = min(tried, key=lambda g: (result[g].kl, g))
        going = [best, *(g for g in _least(stale, stride) if g != best)][:stride]
        harm = result[best] if len(going) == 1 else measure([[*gone, *going]])[0]
        step = _exchanged(measure, gone, Step(tuple(going), harm), stale, width)
        for g in step.back:
            stale[g] = gone.pop(g)
        gone |= {g: stale.pop(g) for g in step.groups}
        steps.append(step)
        now = step.harm.kl
    return steps


def _exchanged(
    measure: Callable[[Sequence[Sequence[Group]]], Sequence[Harm]],
    gone: Mapping[Group, float],
    step: Step,
    stale: Mapping[Group, float],
    width: int,
) -> Step:
    """The step, or one that also takes back an earlier group for the best that is left, if that lowers the joint KL.

    Args:
        gone: earlier groups with the KL that each added when it went.
    """
    left = {g: kl for g, kl in stale.items() if g not in step.groups}
    if not gone or not left:
        return step
    (instead,) = _least(left, 1)
    costly = sorted(gone, key=lambda g: (-gone[g], g))[:width]
    harms = measure([[*(g for g in gone if g != back), *step.groups, instead] for back in costly])
    harm, back = min(zip(harms, costly, strict=True), key=lambda pair: (pair[0].kl, pair[1]))
    return Step((*step.groups, instead), harm, (back,)) if harm.kl < step.harm.kl else step


def _least(stale: dict[Group, float], count: int) -> list[Group]:
    return sorted(stale, key=lambda g: (stale[g], g))[:count]


def _stride(groups: int) -> int:
    return -(-groups // POINTS)


def _measurements(groups: int, width: int) -> int:
    """Plans that are measured: every group alone and, for a width above 0, the search."""
    count, left, stride = groups, groups, _stride(groups) if groups else 1
    while width and left:
        going = min(stride, left)
        count += min(width, left) + (1 if going > 1 else 0)
        left -= going
        count += min(width, groups - left - going) if left else 0
    return count
