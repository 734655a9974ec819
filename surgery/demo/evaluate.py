"""Answering the demo's questions with one model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ...serving.stats import Equivalence, PairedDifference, equivalence, mcnemar, paired_difference, share
from ..chat import Chat, batches, stack
from ..ranges import format_numbers
from .digits import LETTERS, Question

BATCH = 32
PARSER = "the stripped answer has to be the expected word (yes, no, or a letter); anything else is wrong"
MAX_NEW_TOKENS = 2  # the answer and the end of the turn; a longer answer is wrong anyway


@dataclass(frozen=True)
class Result:
    """One model on all questions; shares in [0, 1]. What compares it with the original is None for the original.

    An answer counts as right only if it is the expected word; anything else is wrong, and `unparsed` if it is not even one
    of the possible words.
    """

    name: str
    layers: str
    heads: str
    whole_groups: str
    accuracy: float
    by_kind: dict[str, float]
    unparsed: int
    versus_original: PairedDifference | None
    equivalence: Equivalence | None
    p: float | None
    agreement: float | None
    paths: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """A result with the answers behind it."""

    result: Result
    answers: list[str]
    right: list[bool]


def evaluate(name: str, chat: Chat, asked: Sequence[Question], original: Evaluation | None = None) -> Evaluation:
    """Answer all questions greedily, in batches that need no padding."""
    start = time.perf_counter()
    if chat.patched:
        chat.model.sap_settings.counts.clear()
    inputs = [chat.encode(q.image, q.question) for q in asked]
    answers = [""] * len(asked)
    for batch in batches(inputs, BATCH, chat.model.config.image_token_id):
        found = chat.generate(stack([inputs[i] for i in batch]), MAX_NEW_TOKENS)
        for i, answer in zip(batch, found, strict=True):
            answers[i] = answer
    right = [a == q.answer for a, q in zip(answers, asked, strict=True)]
    kinds = sorted({q.kind for q in asked})
    plan = chat.model.sap_plan if chat.patched else None
    result = Result(
        name=name,
        layers=format_numbers(plan.layers) if plan else "none",
        heads=f"{sum(map(len, plan.heads.values()))} of {plan.num_layers * plan.num_heads}" if plan else "none",
        whole_groups=f"{sum(len(plan.whole_groups(x)) for x in plan.layers)} of {plan.num_layers * plan.num_kv_heads}"
        if plan
        else "none",
        accuracy=share(right),
        by_kind={k: share([r for r, q in zip(right, asked, strict=True) if q.kind == k]) for k in kinds},
        unparsed=sum(a not in (LETTERS if q.options else ("yes", "no")) for a, q in zip(answers, asked, strict=True)),
        versus_original=paired_difference(original.right, right) if original else None,
        equivalence=equivalence(original.right, right) if original else None,
        p=mcnemar(original.right, right) if original else None,
        agreement=share([a == b for a, b in zip(original.answers, answers, strict=True)]) if original else None,
        paths=dict(chat.model.sap_settings.counts) if chat.patched else {},
        seconds=time.perf_counter() - start,
    )
    return Evaluation(result, answers, right)
