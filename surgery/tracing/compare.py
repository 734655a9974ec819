"""Correct against incorrect answers: how much of the graph touches the evidence (the paper: 13.1 % and 4.2 %)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...patches.errors import LostattnError
from ...serving.data import Example
from ..chat import Chat
from ..diagnosis.summary import mean_of
from .boxes import Box
from .trace import Trace, trace

PAPER = {"correct": 0.131, "incorrect": 0.042}
RULE = "an answer is correct if it is the expected one, or begins with its word, letter case and punctuation aside"


@dataclass(frozen=True)
class Sample:
    """One traced row; `rho` is the mean of `layers` over layers with edges, None if none has any."""

    row: int
    question: str
    expected: str
    answer: str
    correct: bool
    rho: float | None
    layers: list[float | None]
    edges: list[int]
    key_tokens: int
    visual_tokens: int
    tracing_mb: float


def compare(
    chat: Chat,
    cases: Sequence[tuple[Example, Sequence[Box]]],
    threshold: float,
    max_new_tokens: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    keep: Callable[[Sample, Trace], None] = lambda sample, trace: None,
) -> list[Sample]:
    """Trace every row; memory does not grow with their number.

    Args:
        keep: is handed every sample with its trace.

    Raises:
        LostattnError: a row that cannot be traced, named.
    """
    samples = []
    for done, (example, boxes) in enumerate(cases, 1):
        image = example.open()
        try:
            result = trace(chat, image, example.question, boxes, threshold, max_new_tokens)
        except LostattnError as error:
            raise LostattnError(f"row {example.row}: {error}") from error
        samples.append(_sample(example, result))
        keep(samples[-1], result)
        progress(done, len(cases))
    return samples


def _sample(example: Example, found: Trace) -> Sample:
    return Sample(
        example.row,
        example.question,
        example.answer,
        found.answer,
        is_correct(found.answer, example.answer),
        found.mean_ratio(),
        found.ratios(),
        [g.edges for g in found.layers],
        int(found.key.sum()),
        len(found.key),
        found.memory["tracing_mb"],
    )


def is_correct(answer: str, expected: str) -> bool:
    """`RULE`.

    Example:
        >>> is_correct("Yes, there is.", "yes"), is_correct("B) seven", "B"), is_correct("no", "yes")
        (True, True, False)
    """
    words, wanted = (re.findall(r"\w+", x.casefold()) for x in (answer, expected))
    return bool(wanted) and words[: len(wanted)] == wanted


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Mean rho with its 95 % interval for correct and incorrect answers, over all layers and per layer."""
    groups = {
        name: [s for s in samples if s.correct is right] for name, right in (("correct", True), ("incorrect", False))
    }
    results: dict[str, Any] = {name: _group(group) for name, group in groups.items()}
    return {**results, "samples": len(samples), "rule": RULE, "paper": PAPER}


def _group(samples: Sequence[Sample]) -> dict[str, Any]:
    ratios = [s.rho for s in samples if s.rho is not None]
    shares = [s.key_tokens / s.visual_tokens for s in samples]
    columns = zip(*(s.layers for s in samples), strict=True)
    layers = [[x for x in column if x is not None] for column in columns]
    return {
        "n": len(samples),
        "without_edges": len(samples) - len(ratios),
        "rho": asdict(mean_of(ratios)) if ratios else None,
        "key_share_of_tokens": sum(shares) / len(shares) if shares else None,
        "layers": [asdict(mean_of(x)) if x else None for x in layers],
    }
