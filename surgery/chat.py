"""Asking a vision-language model questions about pictures, through transformers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers.utils import logging

from ..patches import load_patched
from ..patches.errors import LostattnError
from ..patches.plan import one_of
from ..serving.cause import cause
from ..serving.refusals import unusable_pictures
from .model_folder import DTYPES, is_patched
from .processing import load_processor

__all__ = ["DTYPES", "Chat", "batches", "is_patched", "stack", "torch_device", "without_progress_bars"]


@dataclass
class Chat:
    """A model with its processor.

    Attributes:
        model: plain or patched, in eval mode.
        patched: whether it is patched.
    """

    model: Any
    processor: Any
    patched: bool

    @classmethod
    def load(cls, folder: str | Path, dtype: str = "auto", device: str = "cpu", attention: str = "auto") -> Chat:
        """Load a plain or patched checkpoint; no code from it is run.

        Args:
            dtype: `auto` (as stored) or a torch dtype's name.
            attention: path of a patched model: `auto`, `closed`, `any_mask`, `eager`.

        Raises:
            LostattnError: what keeps it from loading, with the mend.
        """
        patched = is_patched(folder)
        if attention != "auto" and not patched:
            raise LostattnError(
                "--attention chooses the path of patched models, and this one is not patched: leave it out"
            )
        one_of("dtype", dtype, DTYPES)
        processor = load_processor(folder)  # before the weights, which take their time
        try:
            with without_progress_bars():
                kwargs = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
                model = (load_patched if patched else _load_plain)(folder, **kwargs).to(torch_device(device))
        except LostattnError:
            raise
        except Exception as error:  # whatever transformers, safetensors or a device raise
            raise LostattnError(f"cannot load {folder}: {cause(error)}") from error
        if patched:
            model.sap_settings.force(attention)
        return cls(model, processor, patched)

    def prompt(self, question: str, images: int = 1) -> str:
        """The chat prompt of a user turn with pictures in front of the question."""
        content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
        if not getattr(self.processor, "chat_template", None):
            raise LostattnError("the model's folder has no chat template: add chat_template.jinja from its repository")
        turns = [{"role": "user", "content": content}]
        return str(self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def encode(self, image: Image.Image, question: str) -> dict[str, torch.Tensor]:
        """Model inputs of one question, batch of one."""
        prompt = self.prompt(question)
        try:
            inputs = self.processor(text=[prompt], images=[image], return_tensors="pt")
        except Exception as error:  # processors raise whatever they stumble over
            raise LostattnError(unusable_pictures([image.size], error)) from error
        return {k: v.to(self.model.device) for k, v in inputs.items()}

    @torch.no_grad()
    def generate(self, inputs: dict[str, torch.Tensor], max_new_tokens: int = 64) -> list[str]:
        """Greedy answers, special tokens left out."""
        out = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        new = out[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]

    def answer(self, image: Image.Image, question: str, max_new_tokens: int = 64) -> str:
        """Greedy answer to one question."""
        return self.generate(self.encode(image, question), max_new_tokens)[0]


def torch_device(name: str) -> torch.device:
    """The device of that name. LostattnError if it is unknown, not there, or computes nothing."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise LostattnError(f"unknown device '{name}': use cpu, cuda, cuda:1, ...") from error
    if device.type == "meta":
        raise LostattnError("device 'meta' computes nothing: use cpu, cuda, cuda:1, ...")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LostattnError(f"device '{name}' is not there: torch sees no GPU on this machine, use cpu")
    return device


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """A block in which transformers shows no progress bars where nobody watches."""
    shown = logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load_plain(folder: str | Path, **kwargs: Any) -> Any:
    from transformers import AutoModelForImageTextToText

    model, info = AutoModelForImageTextToText.from_pretrained(
        folder, trust_remote_code=False, output_loading_info=True, **kwargs
    )
    if wrong := sorted([*info["missing_keys"], *info["unexpected_keys"]]):
        raise LostattnError(f"the weights in {folder} do not fit the model: {', '.join(wrong[:5])} ({len(wrong)} keys)")
    return model.eval()


def batches(inputs: Sequence[dict[str, torch.Tensor]], size: int, image_token: int) -> list[list[int]]:
    """Indices of inputs grouped so that no batch needs padding and all images stand at the same place.

    Patched attention in such batches runs in its closed form.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, one in enumerate(inputs):
        ids = one["input_ids"][0]
        where = (ids == image_token).nonzero()[:, 0].tolist()
        groups.setdefault((len(ids), *where), []).append(index)
    return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]


def stack(inputs: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """One batch of inputs of equal length."""
    return {k: torch.cat([x[k] for x in inputs]) for k in inputs[0]}
