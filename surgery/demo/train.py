"""Train the demo model: `python -m lostattn.surgery.demo.train --out DIR`.

A Qwen2.5-VL of 1.7 million parameters learns from nothing, on one CPU thread, to answer the questions of `digits.py`.
Three things make that possible within minutes: every image position is told which digit it shows, every digit of a
question whether the picture shows it (without these two hints the answers stay at chance), and the grids grow from
1 x 1 to 8 x 8 cells while the model learns. Writes a complete checkpoint folder and `training_log.jsonl`, one line for
each evaluation on held-out digits.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
import transformers

from .batches import IGNORE, Batch, Packer, check_against_processor, conversation
from .build import build_config, build_model, build_processor, write_digits
from .digits import CELL, DIGITS_FILE, MAX_SIDE, Draw, Question, draw_scene, held_out

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

STAGES = ((0.12, 2), (0.35, 4), (1.0, MAX_SIDE))  # until this part of the steps: grids up to this many cells a side
SIZES = (4, 16, 36, 64)  # accuracy is also logged for images of at most this many cells
EXAM_SEED = 1  # the curve is drawn on other questions than the figures of the README (`held_out(500)`, seed 0)


@dataclass(frozen=True)
class Settings:
    """What decides the weights: the same settings, versions and kind of machine give the same model."""

    steps: int = 1600
    seed: int = 0
    batch: int = 32  # pictures a step
    turns: int = 2  # questions about each picture
    rate: float = 2e-3  # the highest learning rate
    warmup: int = 100  # steps
    every: int = 50  # steps between evaluations


class Trainer:
    """One training run: data stream, model and optimiser."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(settings.seed)
        self.settings = settings
        processor = build_processor()
        check_against_processor(processor, held_out(12, EXAM_SEED))
        self.packer = Packer(processor)
        self.model = build_model(build_config(processor))
        self.draw = Draw(settings.seed)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=settings.rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._rate)

    def _rate(self, step: int) -> float:
        """Part of the highest learning rate: a linear rise, then a linear fall."""
        return min(1.0, (step + 1) / self.settings.warmup) * max(0.02, 1 - step / self.settings.steps)

    def next_batch(self, step: int) -> Batch:
        """New pictures of training digits, all of one grid, as large as the stage allows."""
        side = next(side for until, side in STAGES if step < until * self.settings.steps)
        rows, cols = self.draw.between(1, side), self.draw.between(1, side)
        scenes = [draw_scene(self.draw, rows, cols, "train") for _ in range(self.settings.batch)]
        talks = [conversation(self.draw, scene.shown(), self.settings.turns) for scene in scenes]
        return self.packer.scenes(talks, scenes)

    def step(self, step: int) -> dict[str, float]:
        """One update; the losses (nats) of the answers, of what image positions say and of what question digits say."""
        batch = self.next_batch(step)
        logits = forward(self.model, batch, self.packer.image_id)
        cell = batch.input_ids == self.packer.image_id
        digit = torch.isin(batch.input_ids, self.packer.cell_tokens[:10])
        answer = ~cell & ~digit & (batch.labels != IGNORE)
        losses = {
            name: F.cross_entropy(logits[where], batch.labels[where])
            for name, where in (("answer_loss", answer), ("cell_loss", cell), ("digit_loss", digit))
        }
        (2 * losses["answer_loss"] + losses["cell_loss"] + losses["digit_loss"]).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.schedule.step()
        return {name: loss.item() for name, loss in losses.items()}

    def save(self, folder: Path) -> None:
        """Write the checkpoint: weights, configuration, tokenizer, processor, chat template."""
        self.model.save_pretrained(folder)
        build_processor().save_pretrained(folder)  # a new one: batching leaves its padding in a tokenizer's file


def forward(model: Qwen2_5_VLForConditionalGeneration, batch: Batch, image_id: int) -> torch.Tensor:
    """Logits (B, L, V). No mask is needed: the padding is on the right, where no token looks."""
    return model(
        input_ids=batch.input_ids,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.grid,
        mm_token_type_ids=(batch.input_ids == image_id).int(),
        use_cache=False,
    ).logits


@torch.no_grad()
def evaluate(model: Qwen2_5_VLForConditionalGeneration, packer: Packer, questions: list[Question]) -> dict[str, float]:
    """Part of the questions answered exactly, `<|im_end|>` included: by kind, and by kind and most cells of the image.

    The answer is one token, so predicting it and the end behind it is the same as generating it greedily.
    """
    model.eval()
    right: dict[str, list[float]] = defaultdict(list)
    ordered = sorted(questions, key=lambda q: q.image.width * q.image.height)  # little padding
    for first in range(0, len(ordered), 50):
        chunk = ordered[first : first + 50]
        batch = packer.questions(chunk)
        guess = forward(model, batch, packer.image_id).argmax(-1)
        correct = ((guess == batch.labels) | (batch.labels == IGNORE)).all(dim=1).tolist()
        for question, ok in zip(chunk, correct, strict=True):
            cells = question.image.width * question.image.height // CELL**2
            size = next(size for size in SIZES if cells <= size)
            for key in (question.kind, f"{question.kind}_up_to_{size}"):
                right[key].append(float(ok))
    model.train()
    return {key: round(sum(values) / len(values), 4) for key, values in sorted(right.items())}


def train(settings: Settings, out: Path) -> None:
    """The whole run. The folder holds a usable checkpoint from the first evaluation on."""
    started = time.time()
    trainer = Trainer(settings)
    exam = held_out(400, EXAM_SEED)
    out.mkdir(parents=True, exist_ok=True)
    sums: dict[str, float] = defaultdict(float)
    with (out / "training_log.jsonl").open("w", encoding="utf-8") as log:
        write_line(log, {"settings": asdict(settings), "versions": versions()})
        for step in range(1, settings.steps + 1):
            for name, value in trainer.step(step - 1).items():
                sums[name] += value
            if step % settings.every and step != settings.steps:
                continue
            since = (step - 1) % settings.every + 1  # steps that the losses are the mean of
            losses = {name: round(value / since, 4) for name, value in sums.items()}
            sums.clear()
            accuracy = evaluate(trainer.model, trainer.packer, exam)
            write_line(log, {"step": step, "seconds": round(time.time() - started), **losses, "held_out": accuracy})
            trainer.save(out)


def write_line(log: Any, record: dict[str, Any]) -> None:
    """One JSON line into the log, and to stderr for who watches."""
    line = json.dumps(record)
    log.write(line + "\n")
    log.flush()
    print(line, file=sys.stderr, flush=True)


def versions() -> dict[str, str]:
    """What the run depends on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }


def main() -> None:
    """The command line: one option for each setting."""
    parser = argparse.ArgumentParser(description="Train the demo model and write its checkpoint folder.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--remake-digits", action="store_true", help="first make the packaged digits again (needs scikit-learn)"
    )
    for field in fields(Settings):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    options = vars(parser.parse_args())
    out: Path = options.pop("out")
    if options.pop("remake_digits"):
        write_digits(DIGITS_FILE)
    train(Settings(**options), out)


if __name__ == "__main__":
    main()
