"""What every mode's prior would be for a picture, on plain and patched models alike."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ...patches.context import EncoderCall
from ...patches.decoder import decoder_layers, usual_kv_heads
from ...patches.errors import LostattnError
from ...patches.family import Family, get_family
from ...patches.geometry import Size, overlap
from ...patches.inner import plain_encoder
from ...patches.mode import MODES
from ...patches.plan import Plan
from ...patches.tap import VISION_NAME, Tap, tapped
from ..chat import Chat
from ..processing import read_pixels, read_video_pixels
from .place import encoder_arguments
from .sheet import video_arguments


@dataclass(frozen=True)
class PriorMaps:
    """weights: mode -> (n,) float32; missing: mode -> why it could not be computed."""

    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def prior_maps(
    chat: Chat,
    folder: str | Path,
    inputs: dict[str, torch.Tensor],
    rectangles: torch.Tensor,
    boxes: Sequence[Sequence[float]],
    size: Size,
) -> PriorMaps:
    """Prior numbers w of all registered modes for the one image or video of a prompt, with the options of the model's plan.

    Args:
        folder: the checkpoint, for the normalisation of its pixels.
        rectangles: (n, 4), see `place_tokens`.
        boxes, size: for mode `region`; without boxes it is missing.
    """
    family = get_family(chat.model.config.model_type)
    family = family.of("video") if "pixel_values_videos" in inputs else family
    result = PriorMaps()
    for name, mode in MODES.items():
        if mode.needs == "regions":
            if boxes:
                result.weights[name] = overlap(rectangles, boxes, size)
            continue
        plan = _plan(chat, Path(folder), family, name)
        try:
            result.weights[name] = _weights(chat, family, plan, inputs, len(rectangles)).cpu()
        except LostattnError as error:
            result.missing[name] = str(error)
    return result


def _plan(chat: Chat, folder: Path, family: Family, mode: str) -> Plan:
    """The model's plan with another mode, or one that stands for a plain model."""
    if chat.patched:
        plan: Plan = chat.model.sap_plan
        options = plan.options if mode == plan.mode else MODES[mode].settle(plan.preset)
        return replace(plan, mode=mode, options=options)
    text = chat.model.config.get_text_config()
    layers = decoder_layers(text)
    return Plan(
        family.name,
        mode,
        "paper",
        "raw",
        "all",
        len(layers),
        text.num_attention_heads,
        usual_kv_heads(layers),
        options=MODES[mode].settle("paper"),
        pixels=read_pixels(folder),
        video_pixels=read_video_pixels(folder),
    )


def _weights(chat: Chat, family: Family, plan: Plan, inputs: dict[str, torch.Tensor], tokens: int) -> torch.Tensor:
    inner, video = chat.model.model, family.kind == "video"
    arguments = video_arguments(chat, inputs) if video else encoder_arguments(chat, inputs)
    pixels = arguments["pixel_values"]
    mode = MODES[plan.mode]
    tap = family.listener(inner, arguments, plan.options["pool"]) if mode.listens else None
    with _listening(tap) if tap is not None else nullcontext():
        if tap is not None:
            wanted = inspect.signature(getattr(inner, f"get_{family.kind}_features")).parameters
            with plain_encoder(inner):
                getattr(inner, f"get_{family.kind}_features")(**{k: v for k, v in inputs.items() if k in wanted})
        lengths = family.lengths(inner, pixels, arguments, [tokens])
        call = EncoderCall(family, plan, inner, pixels, arguments, lengths, tap)
        return torch.cat(mode.weights(call))


@contextmanager
def _listening(tap: Tap) -> Iterator[None]:
    """Run the vision tower with the attention function that a tap can hear."""
    config: Any = tap.module.config
    before = config._attn_implementation
    config._attn_implementation = VISION_NAME
    try:
        with tapped(tap):
            yield
    finally:
        config._attn_implementation = before
