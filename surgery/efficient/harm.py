"""What a plan does to a model's output: next-token distributions on the original's own answers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from ...patches.inner import KINDS_OF_PIXELS
from ...patches.plan import Plan
from ...serving.data import Example
from ..chat import Chat
from .frontier import Harm
from .swap import Swap

MAX_KL = 1e6  # nats: half precision can give a token no probability at all
Row = list[float]  # of one answer: KL, 1 if it stays, tokens that stay, tokens


def mean_harm(rows: Sequence[Row]) -> Harm:
    """Harm from the rows of all answers; there has to be one."""
    table = torch.tensor(rows, dtype=torch.float64)
    return Harm(float(table[:, 0].mean()), float(table[:, 1].mean()), float(table[:, 2].sum() / table[:, 3].sum()))


def plain_of(plan: Plan) -> Plan:
    """A plan of the same mode that changes nothing."""
    return replace(plan, heads={}, levels={}, weights={})


@torch.no_grad()
def original_answer(chat: Chat, example: Example, max_new_tokens: int) -> list[int]:
    """Token ids of the greedy answer, the end of the turn included if it came."""
    inputs = chat.encode(example.open(), example.question)
    out = chat.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return out[0, inputs["input_ids"].shape[1] :].tolist()


@torch.no_grad()
def harm_rows(
    chat: Chat, swap: Swap, plans: Sequence[Plan], example: Example, answer: Sequence[int], original: Plan | None = None
) -> list[Row]:
    """One row per plan for one question. The image is encoded once; memory holds one question.

    Args:
        chat: its model is inside `swapping`.
        plans: of one mode; the first one stands for all where the image's prior is made.
        answer: what the original answered, at least one token.
        original: what the plans are held against; None: the plain model.
    """
    lesson = prepare(chat, swap, plans[0], example, answer, original)
    rows = []
    for plan in plans:
        swap(plan)
        rows.append(lesson.row(lesson.log_probs(chat.model)))
    return rows


@dataclass(frozen=True)
class Lesson:
    """One question with the original's answer, ready for every plan.

    Attributes:
        inputs: of the model, the answer included but for its last token.
        encoded: the image's features with its prior.
        truth: the original's log probabilities of the next token, (answer, vocabulary) float32.
    """

    inputs: dict[str, torch.Tensor]
    encoded: dict[str, Any]
    truth: torch.Tensor

    def log_probs(self, model: Any) -> torch.Tensor:
        """The same of a model as it is now."""
        return answer_log_probs(model, self.inputs, self.encoded, len(self.truth))

    def kl(self, found: torch.Tensor) -> torch.Tensor:
        """KL(original, found) at every token of the answer, nats."""
        return torch.where(self.truth.isneginf(), 0.0, self.truth.exp() * (self.truth - found)).sum(-1)

    def row(self, found: torch.Tensor) -> Row:
        """What `mean_harm` takes."""
        stays = found.argmax(-1) == self.truth.argmax(-1)
        kl = self.kl(found).clamp(0, MAX_KL).mean()
        return [float(kl), float(stays.all()), float(stays.sum()), float(len(self.truth))]

    @property
    def size(self) -> int:
        """Bytes of the inputs and the original's log probabilities; features are about as many again."""
        return sum(x.numel() * x.element_size() for x in (*self.inputs.values(), self.truth))


@torch.no_grad()
def prepare(
    chat: Chat, swap: Swap, plan: Plan, example: Example, answer: Sequence[int], original: Plan | None = None
) -> Lesson:
    """Encode a question under a plan, whose mode makes the image's prior, and let the original answer it."""
    swap(plan)
    inputs = with_answer(chat.encode(example.open(), example.question), answer)
    encoded = encode_image(chat.model, inputs)
    swap(plain_of(plan) if original is None else original)
    return Lesson(inputs, encoded, answer_log_probs(chat.model, inputs, encoded, len(answer)))


def with_answer(inputs: dict[str, torch.Tensor], answer: Sequence[int]) -> dict[str, torch.Tensor]:
    """Prompt and all of the answer but its last token, teacher forced."""
    more = len(answer) - 1
    ids = inputs["input_ids"]
    given = torch.tensor([list(answer[:more])], device=ids.device, dtype=ids.dtype)
    out = {**inputs, "input_ids": torch.cat([ids, given], 1)}
    for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0), ("token_type_ids", 0)):
        if name in inputs:
            out[name] = F.pad(inputs[name], (0, more), value=value)
    return out


def encode_image(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Features of the images and videos with their prior, to be used for every plan."""
    encoded = {}
    for kind, pixels in KINDS_OF_PIXELS.items():
        if pixels in inputs:
            encode = getattr(model.model, f"get_{kind}_features")
            wanted = inspect.signature(encode).parameters
            encoded[kind] = encode(**{k: v for k, v in inputs.items() if k in wanted})
    return encoded


def answer_log_probs(model: Any, inputs: dict[str, torch.Tensor], encoded: dict[str, Any], count: int) -> torch.Tensor:
    """Log probabilities (count, vocabulary) float32 of the tokens that follow the last `count` positions."""
    rest = {k: v for k, v in inputs.items() if k not in KINDS_OF_PIXELS.values()}
    out = model(**rest, mm_encoder_outputs=dict(encoded), use_cache=False, logits_to_keep=count)
    return torch.log_softmax(out.logits[0, -count:].float(), -1)
