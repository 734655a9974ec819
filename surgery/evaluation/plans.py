"""Answers of one model under many plans, loaded once: plans are exchanged in memory, and pictures are prepared once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import ModelOutput

from ...patches.mode import get_mode
from ...patches.plan import Plan
from ...serving.evaluation.rate import Rate
from ...serving.evaluation.store import Answers
from ...serving.evaluation.versus import Outcome
from ...serving.sides import folder_fingerprint
from ..chat import Chat
from ..checkpoint.source import Source
from ..efficient.drop_tokens import TokenDrop, dropping
from ..efficient.swap import swapping
from .backends import InProcess
from .evaluate import EvalSettings, answer_settings, score_answers
from .local import Encoded, answer_locally
from .tasks import Asked

TOWERS = ("visual", "vision_tower", "vision_model")  # what the families call their vision tower
KEPT = 2**30  # bytes of the tower's outputs that may stay in memory for the next plan
Way = Plan | TokenDrop


def answer_plans(
    source: Source, ways: Mapping[str, Way], asked: Asked, out: Path, settings: EvalSettings
) -> list[Outcome]:
    """Greedy answers of a plain model under every plan, kept in `out/TASK/KEY.jsonl`; what is there is not asked again.

    Args:
        ways: key -> a plan, or token pruning to compare with. Plans may be of several modes.
    """
    own = InProcess(settings.dtype, settings.device, settings.batch).settings
    identity, outcomes = folder_fingerprint(source.path), []
    chat = Chat.load(source.path, settings.dtype, settings.device)
    encoded = Encoded(chat.processor, asked.items)
    memory = TowerMemory(chat.model)
    for number, (key, way) in enumerate(ways.items(), 1):
        store = Answers(out / asked.task.name / key, answer_settings(asked, identity, plan=key, **own), asked.items)
        start = time.perf_counter()
        if not store.done:
            rate = Rate(f"{asked.task.name}, plan {number} of {len(ways)}", len(asked.items), len(store.found))
            under = dropping(chat.model, way) if isinstance(way, TokenDrop) else swapping(chat.model, way)
            with under, memory.recalling(way):
                answer_locally(chat, encoded, store, asked.max_tokens, settings.batch, rate)
        seconds = time.perf_counter() - start
        outcomes.append(score_answers(asked, key, store, settings.harness, settings.seed, seconds))
    return outcomes


class TowerMemory:
    """Outputs of a model's vision tower, which are the same under every plan, while memory allows; on CPUs alone.

    A batch is known by its tensor, which is kept, so no other tensor can take its place.
    """

    def __init__(self, model: Any) -> None:
        towers = [tower for name in TOWERS if (tower := getattr(model.model, name, None)) is not None]
        self.tower = towers[0] if len(towers) == 1 and model.device.type == "cpu" else None
        self.known: dict[tuple[int, torch.Size], tuple[torch.Tensor, Any]] = {}
        self.bytes = 0

    @contextmanager
    def recalling(self, way: Way) -> Iterator[None]:
        """A block in which the tower runs once for every batch; modes that look into the tower let it run."""
        if self.tower is None or (isinstance(way, Plan) and get_mode(way.mode).listens):
            yield
            return
        run = self.tower.forward

        def forward(pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            key = (pixel_values.data_ptr(), pixel_values.shape)
            if key not in self.known:
                out = run(pixel_values, *args, **kwargs)
                size = pixel_values.numel() * pixel_values.element_size()
                if not isinstance(out, ModelOutput) or self.bytes + size > KEPT:
                    return out
                self.known[key] = (pixel_values, out)
                self.bytes += size
            out = self.known[key][1]
            return type(out)(**out)  # models write into it

        self.tower.forward = forward
        try:
            yield
        finally:
            del self.tower.forward
