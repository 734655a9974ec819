"""Answering a task's items with a model in this process, through transformers, in batches without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...patches.errors import LostattnError
from ...serving.cause import cause
from ...serving.evaluation.rate import Rate
from ...serving.evaluation.store import Replies, Reply
from ...serving.reading.pictures import picture_size
from ...serving.reading.videos import Clip, VideoFile
from ...serving.shown import shown
from ...serving.tasks.task import Item
from ..chat import Chat, batches, chat_prompt, process, stack, visual_ids

WINDOW = 512  # items at most whose inputs are made together: batches are the same however often a run was cut
PIXELS = 40_000_000  # of their pictures at most: about 1 GB of inputs
PLAIN = "plain"  # no patched layer ran
KEPT = 2 * 2**30  # bytes of inputs that may stay in memory for the next model
Inputs = dict[str, torch.Tensor]


class Encoded:
    """A task's items as model inputs on the CPU, window by window; kept for the next model as far as memory allows."""

    def __init__(self, processor: Any, items: Sequence[Item]) -> None:
        self.processor, self.items = processor, items
        self._kept: dict[int, list[Inputs]] = {}
        self._bytes = 0
        self._windows: list[range] = []
        self._stacked: dict[tuple[int, ...], Inputs] = {}

    def windows(self) -> list[range]:
        """Places of items whose inputs fit into memory together; a function of the items alone."""
        if not self._windows:
            start, pixels = 0, 0
            for i, item in enumerate(self.items):
                size = _pixels(item)
                pixels += size
                if i > start and (pixels > PIXELS or i - start == WINDOW):
                    self._windows.append(range(start, i))
                    start, pixels = i, size
            self._windows.append(range(start, len(self.items)))
        return self._windows

    def inputs(self, window: range) -> list[Inputs]:
        """Inputs of these items, batches of one. LostattnError names the item that the processor cannot use."""
        if window.start in self._kept:
            return self._kept[window.start]
        made = [encode(self.processor, self.items[i]) for i in window]
        size = sum(x.numel() * x.element_size() for one in made for x in one.values())
        if self._bytes + size <= KEPT:
            self._kept[window.start] = made
            self._bytes += size
        return made

    def stacked(self, window: range, places: Sequence[int]) -> Inputs:
        """Some items of a window as one batch; the same tensors for every model while memory allows."""
        key = tuple(window.start + place for place in places)
        if key in self._stacked:
            return self._stacked[key]
        inputs = self.inputs(window)
        result = stack([inputs[place] for place in places])
        size = sum(x.numel() * x.element_size() for x in result.values())
        if self._bytes + size <= KEPT:
            self._stacked[key] = result
            self._bytes += size
        return result


def _pixels(item: Item) -> int:
    """Pixels of an item's pictures, read from their headers; 0 for one that cannot be read, which `encode` will tell. A video
    fills a window alone: how large its frames are is known when it is opened.
    """
    total = 0
    for image in item.images:
        if isinstance(image, VideoFile):
            return PIXELS
        try:
            width, height = picture_size(image, item.folder)
            total += width * height
        except Exception:  # PIL raises many kinds
            continue
    return total


def encode(processor: Any, item: Item) -> Inputs:
    """Inputs of one user turn with the item's texts, pictures and videos in their order."""
    opened = item.opened()
    kinds = ["video" if isinstance(one, Clip) else "image" for one in opened]
    content = [{"type": kinds[p]} if isinstance(p, int) else {"type": "text", "text": p} for p in item.prompt]
    try:
        prompt = chat_prompt(processor, content)
        return process(processor, prompt, [opened[part] for part in item.prompt if isinstance(part, int)])
    except LostattnError:
        raise
    except Exception as error:  # processors raise whatever they stumble over
        raise LostattnError(
            f"item {shown(item.id)} (row {item.row}): the model's processor cannot use it ({cause(error)}): leave the row out"
        ) from error


def answer_locally(chat: Chat, encoded: Encoded, answers: Replies, max_tokens: int, batch: int, rate: Rate) -> None:
    """Answer greedily what is not answered yet; a batch's answers are kept as soon as they are there.

    A batch that was cut is computed whole again, so that an interrupted run ends with the same answers as one that was not.
    """
    for window in encoded.windows():
        if all(i in answers.found for i in window):
            continue
        inputs = encoded.inputs(window)
        for places in _alike(inputs, batches(inputs, batch, visual_ids(chat.model.config))):
            at = [window.start + place for place in places]
            if all(i in answers.found for i in at):
                continue
            given = {k: v.to(chat.model.device) for k, v in encoded.stacked(window, places).items()}
            answers.add(dict(zip(at, generate(chat, given, max_tokens), strict=True)))
            rate(len(answers.found))


def _alike(inputs: Sequence[Inputs], groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """The same groups, parted where tensors cannot be stacked: other tiles can make the same number of tokens."""
    out: list[list[int]] = []
    for group in groups:
        parts: dict[tuple[Any, ...], list[int]] = {}
        for i in group:
            parts.setdefault(tuple((k, v.shape[1:]) for k, v in inputs[i].items()), []).append(i)
        out += parts.values()
    return out


@torch.no_grad()
def generate(chat: Chat, inputs: Inputs, max_tokens: int) -> list[Reply]:
    """Greedy answers, special tokens left out. LostattnError if the device's memory does not suffice."""
    if chat.patched:
        chat.model.sap_settings.counts.clear()
    try:
        out = chat.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
    except torch.OutOfMemoryError as error:
        raise LostattnError(
            f"the device's memory does not suffice for {len(inputs['input_ids'])} items at once: lower --batch"
        ) from error
    new = out[:, inputs["input_ids"].shape[1] :]
    end = chat.model.generation_config.eos_token_id
    ends = torch.tensor(end if isinstance(end, list) else [-1 if end is None else end], device=new.device)
    stopped = torch.isin(new, ends).any(1).tolist()
    texts = chat.processor.batch_decode(new, skip_special_tokens=True)
    path = "+".join(sorted(chat.model.sap_settings.counts)) if chat.patched else ""
    return [Reply(t.strip(), "stop" if s else "length", path or PLAIN) for t, s in zip(texts, stopped, strict=True)]
