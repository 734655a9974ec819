"""Batches to train the demo model on: pictures with several questions each, packed into model inputs.

The processor is too slow to feed the training, so pictures are packed into patches here. The questions about a picture
stand one behind the other in one row; each sees the picture and itself, at the positions that it would have alone.
`check_against_processor` proves that token ids, patches, grids and logits are those of the processor and the plain model.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from .build import END, IMAGE, PAD, START, VISION_END, VISION_START, filler_sentence
from .digits import (
    BLANK,
    CELL,
    TAUGHT,
    TOKEN,
    Asked,
    Draw,
    Question,
    Scene,
    ask,
    by_label,
    digit_bank,
    draw_scene,
    paper,
    put_ink,
)

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

IGNORE = -100  # the label that cross entropy leaves out
PATCH = TOKEN // 2
OPENING = f"{START}user\n{VISION_START}"
NO_DIGIT, NO_CELL = 10, 11  # labels of a blank cell, and of a neighbour beyond the border


@dataclass(frozen=True)
class Batch:
    """Model inputs and what they should say. L: the longest row; T: visual tokens of all pictures, in order.

    Attributes:
        input_ids: int64 (B, L), padded on the right.
        positions: int64 (3, B, L), m-rope: time, height, width.
        segment: int64 (B, L): 0 for the picture and what stands before it, then 1, 2, ... for its questions, -1 for padding.
        patches: float32 (4 T, 196), grey, as the processor normalises them.
        labels: int64 (B, L): where an answer or the `<|im_end|>` behind it comes next, that token, else `IGNORE`.
        hints: int64 (B, L): at a digit of a question, "yes" or "no", for whether the picture shows it, else `IGNORE`.
        cells: int64 (T, 3): at the last visual token of a cell its digit, that of the cell to the left and of the one beyond;
            `NO_DIGIT`, `NO_CELL`; else `IGNORE`.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    segment: torch.Tensor
    patches: torch.Tensor
    labels: torch.Tensor
    hints: torch.Tensor
    cells: torch.Tensor

    def mask(self) -> torch.Tensor:
        """What sees what, bool (B, 1, L, L): the picture and the own question, up to the token itself."""
        seg = self.segment
        seen = (seg[:, None, :] == 0) | (seg[:, None, :] == seg[:, :, None])
        return (seen & torch.ones(seg.shape[1], seg.shape[1], dtype=torch.bool).tril())[:, None]


class Packer:
    """Turns pictures and questions into model inputs, as the processor would, but fast."""

    def __init__(self, processor: Qwen2_5_VLProcessor) -> None:
        self.tokenizer = processor.tokenizer
        to_id = self.tokenizer.convert_tokens_to_ids
        self.image_id, self.pad_id, self.end_id = to_id([IMAGE, PAD, END])
        self.digit_ids = {to_id(str(digit)): digit for digit in range(10)}
        self.yes, self.no = to_id(["yes", "no"])
        self.encode = functools.lru_cache(maxsize=20000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text).input_ids)

    def pack(
        self, scenes: Sequence[Scene], asked: Sequence[Sequence[Asked]], ink: torch.Tensor, systems: Sequence[str]
    ) -> Batch:
        """Pictures of one shape, each with its questions.

        Args:
            ink: uint8 (B * rows * cols, 56, 56), 0 paper to 255 ink.
            systems: the system prompt of each, or "".
        """
        rows = [self._row(s, a, t) for s, a, t in zip(scenes, asked, systems, strict=True)]
        longest = max(len(row[0]) for row in rows)
        fills = (self.pad_id, 0, -1, IGNORE, IGNORE)
        ids, positions, segment, labels, hints = (
            [F.pad(row[k], (0, longest - len(row[0])), value=fill) for row in rows] for k, fill in enumerate(fills)
        )
        return Batch(
            torch.stack(ids),
            torch.stack(positions, 1),
            torch.stack(segment),
            patches_of(pictures(scenes, ink)),
            torch.stack(labels),
            torch.stack(hints),
            torch.cat([cell_labels(scene) for scene in scenes]),
        )

    def _row(self, scene: Scene, asked: Sequence[Asked], system: str) -> tuple[torch.Tensor, ...]:
        before = self.encode((f"{START}system\n{system}{END}\n" if system else "") + OPENING)
        height, width = 2 * scene.rows, 2 * scene.cols
        behind = len(before) + max(height, width)
        ids = [*before, *[self.image_id] * (height * width), *self.encode(VISION_END)]
        where = torch.arange(height * width)
        picture = len(before) + torch.stack([torch.zeros_like(where), where // width, where % width])
        positions = [torch.arange(len(before)).expand(3, -1), picture, torch.full((3, 1), behind)]
        segment, labels, hints = [0] * len(ids), [IGNORE] * len(ids), [IGNORE] * len(ids)
        shown = scene.shown()
        for number, question in enumerate(asked, 1):
            text, answer = self.encode(question_text(question)), [*self.encode(question.answer), self.end_id]
            own = [*text, *answer[:-1]]
            positions.append((behind + 1 + torch.arange(len(own))).expand(3, -1))
            ids += own
            segment += [number] * len(own)
            labels += [IGNORE] * (len(text) - 1) + answer
            named = [self.digit_ids.get(token) for token in text]
            hints += [IGNORE if d is None else self.yes if d in shown else self.no for d in named] + [IGNORE] * (
                len(answer) - 1
            )
        return (
            torch.tensor(ids),
            torch.cat(positions, 1),
            torch.tensor(segment),
            torch.tensor(labels),
            torch.tensor(hints),
        )


def question_text(asked: Asked | Question) -> str:
    """What follows the picture in the prompt, up to the answer."""
    return f"{asked.question}{END}\n{START}assistant\n"


def cell_labels(scene: Scene) -> torch.Tensor:
    """`Batch.cells` of one picture: int64 (4 rows * cols, 3)."""
    digits = F.pad(torch.tensor(scene.labels).view(scene.rows, scene.cols), (2, 0), value=NO_CELL)
    digits = digits.masked_fill(digits == BLANK, NO_DIGIT)
    result = torch.full((scene.rows, 2, scene.cols, 2, 3), IGNORE)
    result[:, 1, :, 1] = torch.stack([digits[:, 2:], digits[:, 1:-1], digits[:, :-2]], -1)
    return result.reshape(-1, 3)


def pictures(scenes: Sequence[Scene], ink: torch.Tensor) -> np.ndarray:
    """Grey pictures of one shape, uint8 (B, H, W); `ink` as in `Packer.pack`."""
    rows, cols = scenes[0].rows, scenes[0].cols
    inks = ink.numpy().reshape(-1, rows, cols, CELL, CELL).swapaxes(2, 3).reshape(-1, rows * CELL, cols * CELL)
    return np.stack([put_ink(paper(scene.paper, rows, cols), one) for scene, one in zip(scenes, inks, strict=True)])


def patches_of(grey: np.ndarray) -> torch.Tensor:
    """Pictures uint8 (B, H, W) -> float32 (B * H * W / 196, 196): four patches of a visual token side by side, -1 to 1."""
    n, height, width = grey.shape
    tokens = torch.tensor(grey, dtype=torch.float32).view(n, height // TOKEN, 2, PATCH, width // TOKEN, 2, PATCH)
    return tokens.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, PATCH * PATCH) / 127.5 - 1


def training_batch(packer: Packer, draw: Draw, shape: tuple[int, int], pictures: int, questions: int) -> Batch:
    """New pictures of training digits, each digit warped in its own way, with that many questions each.

    Without questions nearly every cell holds a digit: pictures to learn digits from.
    """
    if questions:
        scenes = [draw_scene(draw, *shape, "train") for _ in range(pictures)]
    else:
        scenes = [_full_scene(draw, *shape) for _ in range(pictures)]
    asked = [_questions_about(draw, scene, questions) for scene in scenes]
    # a system prompt for every fourth picture: the model should not fall silent when somebody greets it
    systems = [filler_sentence(draw) if draw.chance(0.25) else "" for _ in scenes]
    return packer.pack(scenes, asked, warped_ink(scenes, draw), systems)


def _full_scene(draw: Draw, rows: int, cols: int) -> Scene:
    every = [index for own in by_label("train") for index in own]
    cells = tuple(draw.one(every) if draw.chance(0.85) else BLANK for _ in range(rows * cols))
    return Scene(rows, cols, cells, draw.below(1 << 30))


def _questions_about(draw: Draw, scene: Scene, count: int) -> list[Asked]:
    """The kinds that the picture can answer, in random order, and again."""
    results: list[Asked] = []
    kinds: list[str] = []
    while len(results) < count:
        kinds = kinds or draw.some(TAUGHT, len(TAUGHT))
        if question := ask(draw, scene, kinds.pop()):
            results.append(question)
    return results


def question_batch(packer: Packer, question: Question, system: str = "") -> Batch:
    """One question about its own picture, the answer included."""
    grey = np.asarray(question.image)[None, :, :, 0]
    rows, cols = grey.shape[1] // CELL, grey.shape[2] // CELL
    scene = Scene(rows, cols, (BLANK,) * (rows * cols))
    blank = torch.zeros(rows * cols, CELL, CELL, dtype=torch.uint8)
    batch = packer.pack([scene], [[Asked(question.question, question.answer)]], blank, [system])
    return replace(batch, patches=patches_of(grey))


def warped_ink(scenes: Sequence[Scene], draw: Draw) -> torch.Tensor:
    """Ink of all cells, uint8 (cells, 56, 56), every digit turned, slanted, scaled and shifted a little: 1437 digits are few."""
    cells = np.concatenate([np.array(scene.cells) for scene in scenes])
    filled = np.flatnonzero(cells != BLANK)
    ink = torch.zeros(len(cells), CELL, CELL, dtype=torch.uint8)
    digits = torch.from_numpy(digit_bank().ink[cells[filled]]).float()
    generator = torch.Generator().manual_seed(draw.below(1 << 30))
    most = torch.tensor([[0.25], [0.2], [0.2], [0.12], [0.12]])
    turn, size, slant, x, y = (2 * torch.rand(5, len(filled), generator=generator) - 1) * most
    size = 1.05 + size
    top = torch.stack([turn.cos() * size, slant - turn.sin() * size, x], -1)
    low = torch.stack([turn.sin() * size, turn.cos() * size, y], -1)
    grid = F.affine_grid(torch.stack([top, low], 1), [len(filled), 1, CELL, CELL], align_corners=False)
    ink[filled] = F.grid_sample(digits[:, None], grid, align_corners=False)[:, 0].round().clamp(0, 255).byte()
    return ink


def forward(model: Qwen2_5_VLForConditionalGeneration, batch: Batch, image_id: int) -> tuple[torch.Tensor, ...]:
    """Hidden states (B, L, D): what enters the decoder, behind every layer, and behind the last norm in place of the last."""
    embeds = model.model.language_model.embed_tokens(batch.input_ids)
    visual = tower(model.model.visual, batch.patches)
    embeds = embeds.masked_scatter((batch.input_ids == image_id)[..., None], visual)
    return model.model.language_model(
        inputs_embeds=embeds,
        position_ids=batch.positions,
        attention_mask={"full_attention": batch.mask()},
        use_cache=False,
        output_hidden_states=True,
    ).hidden_states


def tower(visual: Any, patches: torch.Tensor) -> torch.Tensor:
    """The vision tower on grey patches (4 T, 196), visual tokens (T, D): the same numbers as the module's own forward.

    Three equal colours, two equal frames: the first layer's weights are summed over them. Every window is one visual token,
    so attention is a batch of 4 x 4, and only the places of the patches in it count.
    """
    kernel = visual.patch_embed.proj.weight
    x = F.linear(patches, kernel.sum((1, 2)).flatten(1))
    (block,) = visual.blocks
    attention = block.attn
    size = x.shape[-1] // attention.num_heads
    places = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    angles = (places[..., None] * visual.rotary_pos_emb.inv_freq).flatten(1).repeat(1, 2)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]  # (4, 1, size)
    q, k, v = attention.qkv(block.norm1(x)).view(-1, 4, 3, attention.num_heads, size).unbind(2)
    q, k = (t * cos + torch.cat([-t[..., size // 2 :], t[..., : size // 2]], -1) * sin for t in (q, k))
    seen = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    x = x + attention.proj(seen.transpose(1, 2).reshape(x.shape))
    return visual.merger(x + block.mlp(block.norm2(x)))


def messages_of(question: Question, system: str = "") -> list[dict[str, Any]]:
    """The question as chat messages with its image, and the answer."""
    content = [{"type": "image", "image": question.image}, {"type": "text", "text": question.question}]
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    return [*messages, {"role": "user", "content": content}, {"role": "assistant", "content": question.answer}]


@torch.no_grad()
def check_against_processor(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, questions: Sequence[Question]
) -> None:
    """Raise if the fast packing gives other inputs or logits than processor and plain model, each question alone."""
    packer = Packer(processor)
    for question in questions:
        batch = question_batch(packer, question, system="You are brief.")
        slow: Any = processor.apply_chat_template(
            [messages_of(question, system="You are brief.")], tokenize=True, return_dict=True, return_tensors="pt"
        )
        length = batch.input_ids.shape[1]  # the answer's end is a label, no input
        expected = model(**slow).logits[:, :length]
        logits = model.lm_head(forward(model, batch, packer.image_id)[-1])
        same = torch.equal(batch.input_ids, slow["input_ids"][:, :length])
        if not same or (logits - expected).abs().max() > 1e-4 * expected.abs().max():
            raise RuntimeError("the demo's fast packing and the processor disagree; adapt batches.py to it")
