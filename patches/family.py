"""Families: what differs between model architectures. One file each, `family_<model_type>.py`, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from .errors import LostattnError
from .plan import Pixels
from .tap import Tap

# What get_image_features was called with besides the pixels (image_grid_thw, image_sizes, ...).
Arguments = Mapping[str, Any]
Split = Callable[[Any, torch.Tensor, Arguments], list[torch.Tensor]]
Complexity = Callable[[Any, list[torch.Tensor], Arguments, Pixels | None], list[torch.Tensor]]
Received = Callable[[Any, Tap, Arguments], list[torch.Tensor]]
Rectangles = Callable[[Any, Arguments, Sequence[tuple[int, int]], Any], list[torch.Tensor]]


@dataclass(frozen=True)
class Videos:
    """What of a family is otherwise for videos than for images. A video is one item: it has one prior, however many runs of
    visual tokens its timestamps cut it into.

    Attributes:
        token: attribute of the configuration that holds the number of a video's placeholder token.
        names: arguments of `get_video_features` -> names that the family's functions know them by.
        split, complexity, received, rectangles: as in `Family`, one tensor per video; None: as for images.
    """

    token: str = "video_token_id"
    names: Mapping[str, str] = field(default_factory=lambda: {"video_grid_thw": "image_grid_thw"})
    split: Split | None = None
    complexity: Complexity | None = None
    received: Received | None = None
    rectangles: Rectangles | None = None


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        name: model_type of the plain checkpoint.
        title: models that users know it by.
        config_class, model_class: the patched classes.
        layers, heads: the paper's defaults: first and last layer, both included, and percentile band.
        rescaled: preset `reference` rescales by measured scores (`prob_rescaled`), else `prob`.
        two_sided: preset `reference` ranks heads by the mean of the text in front of and behind the image.
        split: (inner model, pixel_values, arguments) -> pixels of every image, (..., 3, h, w).
        complexity: (inner model, images as split, arguments, normalisation) -> one (n,) tensor per image.
        tap: (inner model, pool) -> what has to listen to the vision tower.
        received: (inner model, that tap after the call, arguments) -> one (n,) tensor per image.
        rectangles: (inner model, arguments, sizes, fit) -> what every token shows, as `geometry.token_rectangles`.
        towers, text_models: model types of vision tower and decoder that are supported; empty for any.
        video: what happens with videos where `videos` is None, for `lostattn families`.
        videos: how videos are encoded; None where the model has no encoder for them, or none that is supported.
        kind: `image`, or `video` for what `of` gives.
        order: (inner model, arguments) -> numbers of the tower's patches, int64, token by token, for towers that do not
            keep the patches of a token together; None if they do.
        tiled: one picture may be several images of an encoder call, each a tile with a prior of its own.
        both_ways: image tokens see all of their image in prompts, also what lies behind them.
        stacked_features: `get_image_features` gives one tensor (images, n, D), not a tuple of (n, D).
        fit: image processor -> how it cuts pictures, as `rectangles` takes it; None: `geometry.Fit`.
    """

    name: str
    title: str
    config_class: type[PretrainedConfig]
    model_class: type[PreTrainedModel]
    layers: tuple[int, int]
    heads: tuple[float, float]
    rescaled: bool
    two_sided: bool
    split: Split
    complexity: Complexity
    tap: Callable[[Any, str], Tap]
    received: Received
    rectangles: Rectangles
    towers: Sequence[str] = ()
    text_models: Sequence[str] = ()
    video: str = "refused"
    videos: Videos | None = None
    kind: str = "image"
    order: Callable[[Any, Arguments], torch.Tensor] | None = None
    tiled: bool = False
    both_ways: bool = False
    stacked_features: bool = False
    fit: Callable[[Any], Any] | None = None

    @property
    def plain_class(self) -> type[PreTrainedModel]:
        """The class of transformers that runs the plain checkpoint."""
        return self.model_class.__mro__[2]

    def of(self, kind: str) -> Family:
        """The family as its functions take an encoder call of images, or of videos (`image`, `video`).

        Raises:
            LostattnError: the family has no videos.
        """
        if kind == self.kind:
            return self
        if self.videos is None:
            raise LostattnError(
                f"a patched model of family '{self.name}' has no prior for videos: send frames as images, or use the unpatched "
                "model for videos (lostattn unpatch gives it back)"
            )
        parts = ("split", "complexity", "received", "rectangles")
        own = {part: found for part in parts if (found := getattr(self.videos, part)) is not None}
        return replace(self, kind=kind, **own)

    def arguments_of(self, arguments: Arguments) -> dict[str, Any]:
        """Arguments of an encoder call by the names that this family's functions know them by."""
        names = self.videos.names if self.kind == "video" and self.videos is not None else {}
        return {names.get(name, name): value for name, value in arguments.items()}

    def placeholder(self, config: Any) -> int:
        """Number of the token that stands for an image, or for a video."""
        token = self.videos.token if self.kind == "video" and self.videos is not None else "image_token_id"
        return int(getattr(config, token))

    def lengths(self, inner: Any, pixel_values: torch.Tensor, arguments: Arguments, tokens: Sequence[int]) -> list[int]:
        """Visual tokens of everything that has a prior of its own.

        Args:
            tokens: visual tokens of every entry of the encoder's output, which may join the tiles of several images.
        """
        if not self.tiled:
            return list(tokens)
        images = len(self.split(inner, pixel_values, arguments))
        return [sum(tokens) // images] * images

    def listener(self, inner: Any, arguments: Arguments, pool: str) -> Tap:
        """What has to listen to the vision tower in a call with these arguments."""
        tap = self.tap(inner, pool)
        if self.order is not None:
            tap.order = self.order(inner, arguments)
        return tap

    def check(self, config: PretrainedConfig) -> None:
        """Refuse a checkpoint whose vision tower or decoder the family does not cover."""
        parts = (
            ("vision tower", self.towers, config.vision_config),
            ("text model", self.text_models, config.text_config),
        )
        for what, known, part in parts:
            kind = type(part).model_type  # a config keeps what its file says: Idefics 3's calls its tower as the whole
            if known and kind not in known:
                raise LostattnError(
                    f"family '{self.name}' does not cover the {what} '{kind}': it covers {', '.join(known)}"
                )
        if getattr(config.text_config, "attn_logit_softcapping", None):
            raise LostattnError(
                "the decoder caps its attention scores (attn_logit_softcapping), which a patched decoder cannot: only "
                "checkpoints without it can be patched"
            )


FAMILIES: dict[str, Family] = {}


def register_family(family: Family) -> Family:
    """Make a family known; called once by its file."""
    FAMILIES[family.name] = family
    return family


def get_family(name: str) -> Family:
    """The family of a model_type, plain or patched; LostattnError lists the known ones."""
    plain = name.removeprefix("sap_")
    if plain not in FAMILIES:
        raise LostattnError(f"model type '{name}' is not supported: the families are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[plain]


def decoder_of(inner: Any) -> Any:
    """The decoder of a model without head, whatever the family calls it."""
    return inner.language_model if hasattr(inner, "language_model") else inner.text_model


def attentions_of(inner: Any) -> dict[int, Any]:
    """Layer number -> attention module of a model without head, for the layers that have attention with keys and values."""
    return {i: layer.self_attn for i, layer in enumerate(decoder_of(inner).layers) if hasattr(layer, "self_attn")}


def last_attention(tower: torch.nn.Module) -> torch.nn.Module:
    """The self-attention module of the tower's last layer."""
    results = [
        m
        for m in tower.modules()
        if type(m).__name__.endswith("Attention") and not isinstance(m, torch.nn.MultiheadAttention)  # SigLIP's pooling
    ]
    if not results:
        raise LostattnError(f"no attention module found in the vision tower {type(tower).__name__}")
    return results[-1]
