"""Batches to train the demo model on: conversations about pictures, packed into model inputs.

The processor is too slow to feed the training, so pictures are packed into patches here; `check_against_processor`
proves that token ids, patches and grids are those of the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from .build import IMAGE, INSTRUCTIONS, PAD, START, filler_sentence
from .digits import BLANK, CELL, KINDS, Draw, Question, Scene, ask, digit_bank

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLProcessor

Messages = list[dict[str, Any]]
IGNORE = -100  # the label that cross entropy leaves out


@dataclass(frozen=True)
class Batch:
    """Model inputs and what they should say.

    `input_ids` (B, L), padded on the right; `pixel_values` (patches, 1176); `grid` (B, 3), in patches;
    `labels` (B, L): what each position should predict, else `IGNORE`. Where an answer or the `<|im_end|>` behind it
    comes next, that token. In training also: at an image position, the token of the digit that it shows; at a digit
    of a question, "yes" or "no", for whether the picture shows it.
    """

    input_ids: torch.Tensor
    pixel_values: torch.Tensor
    grid: torch.Tensor
    labels: torch.Tensor


class Packer:
    """Turns pictures and conversations into model inputs, as the processor would, but fast."""

    def __init__(self, processor: Qwen2_5_VLProcessor) -> None:
        self.tokenizer, self.template = processor.tokenizer, processor.chat_template
        images = processor.image_processor
        self.mean = torch.tensor(images.image_mean).view(3, 1, 1, 1) * (1 / images.rescale_factor)
        self.std = torch.tensor(images.image_std).view(3, 1, 1, 1) * (1 / images.rescale_factor)
        self.image_id = self.tokenizer.convert_tokens_to_ids(IMAGE)
        self.answer_mark = self.tokenizer.convert_tokens_to_ids([START, "assistant"])
        # what an image position should say: the digit that it shows, or the padding token for a blank cell
        self.cell_tokens = torch.tensor(self.tokenizer.convert_tokens_to_ids([*"0123456789", PAD]))
        self.no_yes = torch.tensor(self.tokenizer.convert_tokens_to_ids(["no", "yes"]))

    def scenes(self, conversations: Sequence[Messages], scenes: Sequence[Scene]) -> Batch:
        """Conversation i is about scene i; every digit is drawn a little differently each time."""
        bank = digit_bank()
        cells = np.concatenate([np.array(scene.cells) for scene in scenes])
        filled = np.flatnonzero(cells != BLANK)
        ink = torch.zeros(len(cells), CELL, CELL)
        ink[filled] = jitter(torch.from_numpy(bank.ink[cells[filled]]).float())
        shown = torch.from_numpy(np.where(cells == BLANK, 10, bank.labels[cells]).astype(np.int64))
        batch = self._pack(conversations, [(scene.rows, scene.cols) for scene in scenes], ink)
        batch.labels[batch.input_ids == self.image_id] = self.cell_tokens[shown]
        self._label_question_digits(batch, [scene.shown() for scene in scenes])
        return batch

    def _label_question_digits(self, batch: Batch, shown: Sequence[Sequence[int]]) -> None:
        """At every digit of a question: is it in the picture? The answer to the first half of a question."""
        for digit, token in enumerate(self.cell_tokens[:10].tolist()):
            there = torch.tensor([digit in digits for digits in shown]).long()
            label = self.no_yes[there][:, None].expand_as(batch.labels)
            batch.labels[:] = torch.where(batch.input_ids == token, label, batch.labels)

    def questions(self, questions: Sequence[Question], system: str = "") -> Batch:
        """One turn about each question's own picture, the answer included."""
        shapes, cells = [], []
        for question in questions:
            grey = np.asarray(question.image)[:, :, 0]
            rows, cols = grey.shape[0] // CELL, grey.shape[1] // CELL
            shapes.append((rows, cols))
            cells.append(255 - grey.reshape(rows, CELL, cols, CELL).swapaxes(1, 2).reshape(-1, CELL, CELL))
        return self._pack([messages_of(q, system) for q in questions], shapes, torch.from_numpy(np.concatenate(cells)))

    def _pack(self, conversations: Sequence[Messages], shapes: list[tuple[int, int]], ink: torch.Tensor) -> Batch:
        texts = self.tokenizer.apply_chat_template(list(conversations), chat_template=self.template, tokenize=False)
        widened = [text.replace(IMAGE, IMAGE * rows * cols) for text, (rows, cols) in zip(texts, shapes, strict=True)]
        ids = self.tokenizer(widened, padding=True, padding_side="right", return_tensors="pt").input_ids
        grid = torch.tensor([[1, 2 * rows, 2 * cols] for rows, cols in shapes])
        return Batch(ids, self.patches(ink), grid, self._answer_labels(ids))

    def patches(self, ink: torch.Tensor) -> torch.Tensor:
        """Cells (N, 28, 28), 0 paper to 255 ink -> patches (4N, 3*2*14*14): a cell is four consecutive patches."""
        half = CELL // 2
        quarters = (255 - ink.float()).view(-1, 2, half, 2, half).transpose(2, 3)  # (N, 2, 2, 14, 14)
        frame = (quarters.reshape(-1, 1, 1, half, half) - self.mean) / self.std  # (4N, 3, 1, 14, 14)
        return frame.expand(-1, -1, 2, -1, -1).reshape(len(frame), -1)  # two equal frames make a still image

    def _answer_labels(self, ids: torch.Tensor) -> torch.Tensor:
        """Labels (B, L): of each `<|im_start|> assistant newline ANSWER <|im_end|>` the last two, where predicted."""
        rows, starts = ((ids[:, :-1] == self.answer_mark[0]) & (ids[:, 1:] == self.answer_mark[1])).nonzero().unbind(1)
        labels = torch.full_like(ids, IGNORE)
        for behind in (2, 3):
            labels[rows, starts + behind] = ids[rows, starts + behind + 1]
        return labels


def jitter(digits: torch.Tensor) -> torch.Tensor:
    """Turn, slant, scale and shift each digit a little, (N, 28, 28): 1400 digits are few."""
    n = len(digits)
    turn, slant, scale_x, scale_y = ((torch.rand(4, n) * 2 - 1) * torch.tensor([[0.2], [0.2], [0.12], [0.12]])).unbind()
    shift = (torch.rand(n, 2, 1) * 2 - 1) * (4 / CELL)  # up to two pixels, in units of half a cell
    spin = torch.stack([turn.cos(), slant - turn.sin(), turn.sin(), turn.cos()], dim=-1).view(n, 2, 2)
    matrix = spin * torch.stack([1 + scale_x, 1 + scale_y], dim=-1).view(n, 2, 1)
    grid = F.affine_grid(torch.cat([matrix, shift], dim=2), [n, 1, CELL, CELL], align_corners=False)
    return F.grid_sample(digits[:, None], grid, align_corners=False)[:, 0].round()


def conversation(draw: Draw, shown: Sequence[int], turns: int) -> Messages:
    """Several questions about one picture, answered; half of the time a system prompt, sometimes an instruction."""
    messages: Messages = []
    if draw.chance(0.5):
        messages.append({"role": "system", "content": filler_sentence(draw)})
    for turn in range(turns):
        kind = draw.one(KINDS)
        text, answer, _ = ask(draw, shown, kind)
        if draw.chance(0.2):
            text += " " + draw.one(INSTRUCTIONS[kind])
        image = [{"type": "image"}] if turn == 0 else []
        messages.append({"role": "user", "content": [*image, {"type": "text", "text": text}]})
        messages.append({"role": "assistant", "content": answer})
    return messages


def messages_of(question: Question, system: str = "") -> Messages:
    """The question as chat messages with its image, and the answer."""
    content = [{"type": "image", "image": question.image}, {"type": "text", "text": question.question}]
    messages: Messages = [{"role": "system", "content": system}] if system else []
    return [*messages, {"role": "user", "content": content}, {"role": "assistant", "content": question.answer}]


def check_against_processor(processor: Qwen2_5_VLProcessor, questions: Sequence[Question]) -> None:
    """Raise if the fast packing and the processor make different inputs of these questions."""
    fast = Packer(processor).questions(questions, system="You are brief.")
    slow: Any = processor.apply_chat_template(
        [messages_of(question, system="You are brief.") for question in questions],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "right"},
    )
    same = torch.equal(fast.input_ids, slow["input_ids"]) and torch.equal(fast.grid, slow["image_grid_thw"])
    if not same or not torch.allclose(fast.pixel_values, slow["pixel_values"], rtol=0, atol=1e-6):
        raise RuntimeError("the demo's fast packing and the processor disagree; adapt batches.Packer to it")
