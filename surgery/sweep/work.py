"""Answering a sweep's plans: the model that obeys them one after the other, and the answers on disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ...patches.plan import Plan
from ...serving.disk import disk_errors, write_json
from ...serving.evaluation.rate import Rate
from ...serving.evaluation.store import Answers, alone_in
from ...serving.evaluation.versus import Outcome
from ...serving.shape import model_shape
from ...serving.sides import folder_fingerprint
from ...serving.tasks.task import Item
from ...serving.versions import versions
from ..calibrate import calibrate
from ..calibration import Calibration
from ..chat import Chat
from ..checkpoint.source import Source
from ..demo.builtin import builtin_examples
from ..evaluation.evaluate import EvalSettings, answer_settings, score_answers
from ..evaluation.local import Encoded, answer_locally
from ..evaluation.tasks import Asked
from .grid import plan_key
from .swap import load_with_plan, swap_plan

Plans = Mapping[str, tuple[Plan, str]]  # key -> plan, and its name for progress
Measure = Callable[[Source, str, str, Path | None], Calibration]
logger = logging.getLogger(__name__)


@dataclass
class Answerer:
    """One model in memory: loaded when it is first needed, and then obeying one plan after the other.

    Attributes:
        items: of every task.
    """

    source: Source
    items: Mapping[str, Sequence[Item]]
    dtype: str
    device: str
    chat: Chat | None = None
    encoded: dict[str, Encoded] = field(default_factory=dict)

    def answer(self, plan: Plan, task: str, store: Answers, max_tokens: int, batch: int, rate: Rate) -> None:
        """Answer what the store does not hold yet."""
        if self.chat is None:
            logger.info(f"loading {self.source.name}")
            self.chat = load_with_plan(self.source.path, self.source.config, plan, self.dtype, self.device)
            self.encoded = {name: Encoded(self.chat.processor, items) for name, items in self.items.items()}
        elif self.chat.model.sap_plan != plan:
            swap_plan(self.chat.model, plan)
        answer_locally(self.chat, self.encoded[task], store, max_tokens, batch, rate)


class Work:
    """One sweep under way in this process."""

    def __init__(self, source: Source, asked: Sequence[Asked], out: Path, settings: EvalSettings) -> None:
        self.source, self.asked, self.out, self.settings = source, asked, out, settings
        self.identity, self.versions = folder_fingerprint(source.path), versions()
        items = {one.task.name: one.items for one in asked}
        self._answerer = Answerer(source, items, settings.dtype, settings.device)

    def answer(self, plan: Plan, name: str, wait: bool = False) -> list[Outcome] | None:
        """Evaluate one plan; None if another process is doing so, unless `wait`: what it leaves is answered here."""
        key = plan_key(plan)
        with alone_in(self.lock(key), wait) as alone:
            return [self._task(one, plan, key, name) for one in self.asked] if alone else None

    def lock(self, key: str) -> Path:
        """Held by the process that answers this plan."""
        return self.out / ".locks" / key

    def answers(self, one: Asked, key: str) -> Answers:
        """What is answered of a task under a plan. LostattnError if `out` holds answers of other settings."""
        own = answer_settings(
            one,
            self.identity,
            plan=key,
            dtype=self.settings.dtype,
            device=self.settings.device.partition(":")[0],
            batch=self.settings.batch,
            versions=self.versions,
        )
        return Answers(self.out / one.task.name / key, own, one.items)

    def _task(self, one: Asked, plan: Plan, key: str, name: str) -> Outcome:
        store, start = self.answers(one, key), time.perf_counter()
        if not store.done:
            rate = Rate(f"{one.task.name}, {name}", len(one.items), len(store.found))
            self._answerer.answer(plan, one.task.name, store, one.max_tokens, self.settings.batch, rate)
        seconds = time.perf_counter() - start
        return score_answers(one, key, store, self.settings.harness, self.settings.seed, seconds)

    def total(self, plans: Plans) -> int:
        """How many answers these plans need."""
        return len(plans) * sum(len(one.items) for one in self.asked)

    def answered(self, keys: Iterable[str]) -> int:
        """How many answers lie in `out`, whoever gave them; a glance at the files, for progress."""
        return sum(_lines(self.out / one.task.name / key, len(one.items)) for key in keys for one in self.asked)


def _lines(base: Path, whole: int) -> int:
    try:
        return min(whole, base.with_name(f"{base.name}.part.jsonl").read_bytes().count(b"\n"))
    except OSError:  # not begun, or finished
        return whole if base.with_name(f"{base.name}.jsonl").exists() else 0


def measure_heads(source: Source, dtype: str, device: str, partial: Path | None = None) -> Calibration:
    """Rank a model's heads on the built-in pictures.

    Args:
        partial: takes every finished question, so that an interrupted call goes on where it stopped.
    """
    chat = Chat.load(source.path, dtype, device)
    family = model_shape(source.config).family
    result = calibrate(
        chat, family, builtin_examples(), "built-in pictures of handwritten digits", partial, weights=source.identity
    )
    del chat
    torch.cuda.empty_cache()  # other processes may want the room
    return result


class Measured:
    """Measured heads: a file that was given, or made once in `out` when first needed."""

    def __init__(self, source: Source, out: Path, settings: EvalSettings, given: Path | None, measure: Measure) -> None:
        self.source, self.settings, self.given, self.measure = source, settings, given, measure
        self.path = given or out / f"calibration-{folder_fingerprint(source.path)[:12]}.json"
        self.found: Calibration | None = None

    def get(self) -> Calibration:
        """LostattnError if the file cannot be used, or the model not be measured."""
        if self.found is None:
            if self.given is None and not self.path.exists():
                with alone_in(self.path.parent / ".locks" / "calibration", wait=True):
                    if not self.path.exists():
                        self._make()
            self.found = Calibration.read(self.path)
            shape = model_shape(self.source.config)
            weights = self.source.identity if self.found.weights else ""
            self.found.check(shape.family.name, shape.layers, shape.heads, shape.kv_heads, weights)
        return self.found

    def _make(self) -> None:
        questions = len(builtin_examples())
        logger.info(f"ranking heads on {questions} built-in questions; --calibration FILE takes those of your own data")
        partial = self.path.with_name(f"{self.path.name}.partial")
        result = self.measure(self.source, self.settings.dtype, self.settings.device, partial)
        with disk_errors(f"cannot write {self.path}"):
            write_json(self.path, result.to_json())
            partial.unlink(missing_ok=True)
