"""Asking a vision-language model questions about pictures and videos, through transformers."""

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
from ..patches.family import FAMILIES
from ..patches.plan import one_of
from ..serving.cause import cause
from ..serving.reading.videos import Clip
from ..serving.refusals import unusable_pictures
from .model_folder import DTYPES, is_patched
from .processing import load_processor

__all__ = [
    "DTYPES",
    "Chat",
    "batches",
    "is_patched",
    "process",
    "stack",
    "torch_device",
    "visual_ids",
    "without_progress_bars",
]


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

    def prompt(self, question: str, images: int = 1, videos: int = 0) -> str:
        """The chat prompt of a user turn with pictures and videos in front of the question."""
        content = [{"type": "image"}] * images + [{"type": "video"}] * videos
        return chat_prompt(self.processor, [*content, {"type": "text", "text": question}])

    def encode(self, image: Image.Image | Clip, question: str) -> dict[str, torch.Tensor]:
        """Model inputs of one question about a picture or a video, batch of one."""
        video = isinstance(image, Clip)
        self.check_videos(video)
        prompt = self.prompt(question, int(not video), int(video))
        try:
            inputs = process(self.processor, prompt, [image])
        except Exception as error:  # processors raise whatever they stumble over
            raise LostattnError(unusable_pictures([image.size], error)) from error
        return {k: v.to(self.model.device) for k, v in inputs.items()}

    def check_videos(self, asked: bool) -> None:
        """Refuse videos of a model that has none. LostattnError."""
        family = FAMILIES.get(str(self.model.config.model_type).removeprefix("sap_"))
        named = str(self.model.config.model_type).removeprefix("sap_")
        if asked and (family is None or (family.videos is None and family.video != "as pictures")):
            raise LostattnError(f"models of family '{named}' take no videos: send frames as pictures")
        if asked and not getattr(self.processor, "video_processor", None):
            raise LostattnError(
                "the model's folder has no video processor: add video_preprocessor_config.json from its repository"
            )

    @torch.no_grad()
    def generate(self, inputs: dict[str, torch.Tensor], max_new_tokens: int = 64) -> list[str]:
        """Greedy answers, special tokens left out."""
        out = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        new = out[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]

    def answer(self, image: Image.Image | Clip, question: str, max_new_tokens: int = 64) -> str:
        """Greedy answer to one question."""
        return self.generate(self.encode(image, question), max_new_tokens)[0]

    def visual(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Visual tokens of a prompt, bool (S,)."""
        ids = inputs["input_ids"][0]
        return torch.isin(ids, torch.tensor(visual_ids(self.model.config), device=ids.device))


def chat_prompt(processor: Any, content: Sequence[dict[str, str]]) -> str:
    """The text of one user turn, by the chat template. LostattnError if there is none."""
    if not getattr(processor, "chat_template", None):
        raise LostattnError("the model's folder has no chat template: add chat_template.jinja from its repository")
    turns = [{"role": "user", "content": list(content)}]
    return str(processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def process(processor: Any, prompt: str, items: Sequence[Image.Image | Clip]) -> dict[str, torch.Tensor]:
    """Model inputs of one prompt with pictures and videos in its order; raises whatever the processor raises.

    The frames of a clip are taken as they are: which ones, and how many, was decided when it was opened.
    """
    pictures = [item for item in items if not isinstance(item, Clip)]
    clips = [item for item in items if isinstance(item, Clip)]
    more: dict[str, Any] = {}
    if clips:
        frames, stated = [clip.frames for clip in clips], [clip.metadata() for clip in clips]
        more = {"videos": [frames], "video_metadata": [stated], "do_sample_frames": False}
    result = processor(text=[prompt], images=pictures or None, return_tensors="pt", **more)
    return {name: value for name, value in result.items() if isinstance(value, torch.Tensor)}


def visual_ids(config: Any) -> list[int]:
    """Numbers of the tokens that stand for visual tokens in a model's prompts."""
    family = FAMILIES.get(str(config.model_type).removeprefix("sap_"))
    kinds = ["image"] if family is None or family.videos is None else ["image", "video"]
    return (
        [config.image_token_id] if family is None else sorted({family.of(kind).placeholder(config) for kind in kinds})
    )


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


def batches(inputs: Sequence[dict[str, torch.Tensor]], size: int, visual: Sequence[int]) -> list[list[int]]:
    """Indices of inputs grouped so that no batch needs padding and all images and videos stand at the same place.

    Patched attention in such batches runs in its closed form.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, one in enumerate(inputs):
        ids = one["input_ids"][0]
        where = torch.isin(ids, torch.tensor(visual, device=ids.device)).nonzero()[:, 0].tolist()
        groups.setdefault((len(ids), *where), []).append(index)
    return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]


def stack(inputs: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """One batch of inputs of equal length."""
    return {k: torch.cat([x[k] for x in inputs]) for k in inputs[0]}
