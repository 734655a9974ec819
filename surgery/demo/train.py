"""Train the demo model: `python -m lostattn.surgery.demo.train --out DIR`.

A Qwen2.5-VL of 1.6 million parameters learns from nothing, on one CPU thread, to answer the questions of `digits.py`. Answers
alone teach a model of this size nothing in that time, so training also asks, through heads that are thrown away, what the
layers in between know: behind layer 1 the last visual token of a cell says its digit, behind layer 3 the two digits to its
left, and behind layer 4 the answer is read by the model's own head, which leaves the last three layers little to do. Every
digit of a question says whether the picture shows it. Pictures grow from one cell to 8 x 8 while the model learns. Writes a
complete checkpoint folder and `training_log.jsonl`, one line for each evaluation on held-out digits.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
import transformers

from .batches import (
    IGNORE,
    NO_CELL,
    Batch,
    Packer,
    check_against_processor,
    forward,
    question_batch,
    training_batch,
)
from .build import build_config, build_model, build_processor, write_digits
from .digits import DIGITS_FILE, TAUGHT, Draw, Question, held_out

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

# until this part of the steps: fewest and most cells a side, questions about each picture (0: only what each cell shows)
STAGES = ((0.06, 2, 4, 0), (0.2, 1, 2, 6), (0.4, 1, 3, 6), (0.75, 2, 5, 6), (1.0, 2, 8, 6))
TOKENS = 3600  # of a step, about
QUESTION = 17  # tokens of a question with its answer, about
EXAM_SEED = 1  # the curve is drawn on other questions, of all shapes, than the figures of the model's card (seed 0)
OWN, LEFT, EARLY = 2, 4, 5  # hidden states that are asked for the own digit, the digits to the left, the answer


@dataclass(frozen=True)
class TrainingSettings:
    """What decides the weights: the same settings, versions and kind of machine give the same model."""

    steps: int = 2200
    seed: int = 0
    rate: float = 3e-3  # the highest learning rate
    warmup: int = 60  # steps
    decay: float = 0.05
    every: int = 100  # steps between evaluations


class Muon:
    """Momentum with orthogonal updates of matrices (Jordan et al. 2024), of the size of Adam's (Liu et al. 2025).

    torch has it too, in bfloat16, which most CPUs do not calculate with.
    """

    def __init__(self, weights: Iterable[torch.nn.Parameter], decay: float, momentum: float = 0.95) -> None:
        self.groups: dict[tuple[int, ...], list[torch.nn.Parameter]] = defaultdict(list)
        for weight in weights:
            self.groups[tuple(weight.shape)].append(weight)
        self.mean = {shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()}
        self.decay, self.momentum = decay, momentum

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update from the gradients, which are then dropped."""
        for shape, group in self.groups.items():
            gradient = torch.stack([torch.zeros_like(w) if w.grad is None else w.grad for w in group])
            self.mean[shape].lerp_(gradient, 1 - self.momentum)
            update = orthogonal(gradient.lerp(self.mean[shape], self.momentum)) * (0.2 * max(shape) ** 0.5 * rate)
            for weight, own in zip(group, update, strict=True):
                weight.mul_(1 - rate * self.decay).sub_(own)
                weight.grad = None


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices (N, R, C) with all singular values near 1: five steps of Newton and Schulz."""
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    x = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x if wide is matrices else x.mT


class Trainer:
    """One training run: data stream, model and optimisers."""

    def __init__(self, settings: TrainingSettings) -> None:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(settings.seed)
        self.settings = settings
        processor = build_processor()
        self.packer = Packer(processor)
        self.model = build_model(build_config(processor))
        check_against_processor(self.model, processor, held_out(12, EXAM_SEED, shapes=(), kinds=TAUGHT))
        width = self.model.config.text_config.hidden_size
        self.own, self.left = torch.nn.Linear(width, NO_CELL), torch.nn.Linear(width, 2 * (NO_CELL + 1))
        self.draw = Draw(settings.seed)
        in_blocks = {p for n, p in self.model.named_parameters() if p.ndim == 2 and ("layers." in n or "blocks." in n)}
        others = [p for p in self.model.parameters() if p not in in_blocks]
        self.muon = Muon([p for p in self.model.parameters() if p in in_blocks], settings.decay)
        heads = [*self.own.parameters(), *self.left.parameters()]
        self.adam = torch.optim.AdamW([*others, *heads], betas=(0.9, 0.98), weight_decay=settings.decay)

    def rate(self, step: int) -> float:
        """The learning rate: a linear rise, level to two fifths of the steps, a linear fall."""
        part = step / self.settings.steps
        return self.settings.rate * min(1.0, (step + 1) / self.settings.warmup, max(0.01, (1 - part) / 0.6))

    def next_batch(self, step: int) -> Batch:
        """New pictures of training digits, all of one shape, as large as the stage allows."""
        least, most, questions = next(s[1:] for s in STAGES if step < s[0] * self.settings.steps)
        shape = self.draw.between(least, most), self.draw.between(max(least, 2), most)
        pictures = max(4, TOKENS // (4 * shape[0] * shape[1] + 6 + questions * QUESTION))
        return training_batch(self.packer, self.draw, shape, pictures, questions)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Losses in nats: answers of the whole model and of its first five layers, hints, cells, neighbours."""
        states = forward(self.model, batch, self.packer.image_id)
        norm, head = self.model.model.language_model.norm, self.model.lm_head
        cells = (
            states[OWN][batch.input_ids == self.packer.image_id],
            states[LEFT][batch.input_ids == self.packer.image_id],
        )
        corner = batch.cells[:, 0] != IGNORE
        left = self.left(cells[1][corner]).view(-1, NO_CELL + 1)
        results = {
            "cell": F.cross_entropy(self.own(cells[0][corner]), batch.cells[corner, 0]),
            "left": F.cross_entropy(left, batch.cells[corner, 1:].flatten()),
        }
        answers, hints = batch.labels != IGNORE, batch.hints != IGNORE
        if bool(answers.any()):
            results["answer"] = F.cross_entropy(head(states[-1][answers]), batch.labels[answers])
            results["early"] = F.cross_entropy(head(norm(states[EARLY][answers])), batch.labels[answers])
            results["hint"] = F.cross_entropy(head(states[-1][hints]), batch.hints[hints])
        return results

    def step(self, step: int) -> dict[str, float]:
        """One update; the losses."""
        losses = self.losses(self.next_batch(step))
        weights = {"answer": 1.5, "early": 1.5, "hint": 0.5, "cell": 1.0, "left": 0.5}
        torch.stack([weights[name] * loss for name, loss in losses.items()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.adam.param_groups[0]["params"], 1.0)
        rate = self.rate(step)
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        self.adam.zero_grad()
        self.muon.step(rate)
        return {name: loss.item() for name, loss in losses.items()}

    def save(self, folder: Path) -> None:
        """Write the checkpoint: weights, configuration, tokenizer, processor, chat template."""
        self.model.save_pretrained(folder)
        build_processor().save_pretrained(folder)  # a new one: use leaves traces in a tokenizer's file


@torch.no_grad()
def evaluate(
    model: Qwen2_5_VLForConditionalGeneration, packer: Packer, questions: Sequence[Question]
) -> dict[str, float]:
    """Part of the questions answered exactly, `<|im_end|>` included, by kind and in all.

    Every token of the answer is predicted from the right ones before it; all right is the same as generating the answer greedily.
    """
    model.eval()
    right: dict[str, list[float]] = defaultdict(list)
    for question in questions:
        batch = question_batch(packer, question)
        guess = model.lm_head(forward(model, batch, packer.image_id)[-1]).argmax(-1)
        correct = float(((guess == batch.labels) | (batch.labels == IGNORE)).all())
        for key in (question.kind, "all"):
            right[key].append(correct)
    model.train()
    return {key: round(sum(values) / len(values), 4) for key, values in sorted(right.items())}


def train(settings: TrainingSettings, out: Path, until: int | None = None) -> None:
    """The whole run, or its first `until` steps. The folder holds a usable checkpoint from the first evaluation on."""
    started = time.time()
    trainer = Trainer(settings)
    exam = held_out(240, EXAM_SEED, shapes=(), kinds=TAUGHT)
    out.mkdir(parents=True, exist_ok=True)
    sums: dict[str, list[float]] = defaultdict(list)
    with (out / "training_log.jsonl").open("w", encoding="utf-8") as log:
        write_line(log, {"settings": asdict(settings), "versions": versions()})
        for step in range(1, (until or settings.steps) + 1):
            for name, value in trainer.step(step - 1).items():
                sums[name].append(value)
            if step % settings.every and step != settings.steps:
                continue
            losses = {name: round(sum(values) / len(values), 4) for name, values in sums.items()}
            sums.clear()
            accuracy = evaluate(trainer.model, trainer.packer, exam)
            write_line(
                log, {"step": step, "seconds": round(time.time() - started), "losses": losses, "held_out": accuracy}
            )
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
    parser.add_argument("--until", type=int, help="stop after so many steps of the run")
    parser.add_argument(
        "--remake-digits", action="store_true", help="first make the packaged digits again (needs scikit-learn)"
    )
    for field in fields(TrainingSettings):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    options = vars(parser.parse_args())
    out: Path = options.pop("out")
    until = options.pop("until")
    if options.pop("remake_digits"):
        write_digits(DIGITS_FILE)
    train(TrainingSettings(**options), out, until)


if __name__ == "__main__":
    main()
