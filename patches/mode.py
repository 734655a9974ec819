"""Modes: where the prior of an image comes from. One file each, `mode_<name>.py`, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from .errors import LostattnError
from .plan import Plan


class ImageContext(Protocol):
    """What a mode may ask about the images of one encoder call. Lists have one entry per image."""

    @property
    def plan(self) -> Plan:
        """The model's plan."""

    @property
    def lengths(self) -> Sequence[int]:
        """Visual tokens of every image."""

    @property
    def device(self) -> torch.device:
        """Where the prior is wanted."""

    def complexity(self) -> list[torch.Tensor]:
        """Patch complexity of every visual token, (n,) float32; 0 for tokens that show no pixels."""

    def received_attention(self) -> list[torch.Tensor]:
        """Attention that every visual token receives in the vision encoder's last layer, (n,) float32."""

    def digests(self) -> list[bytes]:
        """A digest of the plan's seed and each image's content."""

    def region_overlaps(self) -> list[torch.Tensor]:
        """Overlap of every visual token with the boxes of `use_regions`, (n,) float32."""


@dataclass(frozen=True)
class Mode:
    """One source of prior numbers.

    Attributes:
        name: as users write it.
        summary: one line for `lostattn modes`.
        weights: context -> one float32 (n,) tensor per image, n visual tokens.
        listens: the vision tower's attention has to be read.
        needs: what the caller has to supply beside the image: `regions` (through `use_regions`), or nothing.
        options: option -> the values it may take, the first is the default.
        needs_pixels: the numbers depend on the image's pixels, not on the number of its tokens alone.
        scores: the one scores rule of a mode whose numbers are scores already; such a mode takes no levels, and blend 1
            or 0. Empty: any.
        reference: options under preset `reference`.
    """

    name: str
    summary: str
    weights: Callable[[ImageContext], list[torch.Tensor]]
    listens: bool = False
    needs_pixels: bool = True
    needs: str = ""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reference: Mapping[str, str] = field(default_factory=dict)
    scores: str = ""

    def check(self, plan: Plan) -> None:
        """LostattnError if the plan lacks options of this mode, or gives it scores, levels or a blend that mean nothing."""
        if self.settle(plan.preset, plan.options) != dict(plan.options):
            raise LostattnError(f"the plan lacks options of mode '{self.name}': plan anew")
        self.check_scores(plan.scores, plan.blend)
        if self.scores and plan.levels:
            raise LostattnError(f"mode '{self.name}' takes no levels: plan anew")

    def check_scores(self, scores: str | None, blend: float) -> None:
        """LostattnError if the mode has no use for this scores rule (None: not chosen) or blend."""
        if not self.scores:
            return
        if scores not in (None, self.scores):
            raise LostattnError(
                f"mode '{self.name}' gives the scores itself, so a scores rule means nothing to it: leave --scores out"
            )
        if blend not in (0.0, 1.0):
            raise LostattnError(f"mode '{self.name}' replaces scores and cannot be mixed with them: leave --blend out")

    def settle(self, preset: str, chosen: Mapping[str, str] | None = None) -> dict[str, str]:
        """All options of a plan: chosen ones, else the preset's, else the first value.

        Raises:
            LostattnError: an option or a value that this mode does not know.
        """
        settled = {name: values[0] for name, values in self.options.items()}
        if preset == "reference":
            settled |= self.reference
        for name, value in (chosen or {}).items():
            if value not in self.options.get(name, ()):
                known = "; ".join(f"{n}: {', '.join(v)}" for n, v in self.options.items()) or "none"
                raise LostattnError(f"mode '{self.name}' has no option {name}={value}: its options are {known}")
            settled[name] = value
        return settled


MODES: dict[str, Mode] = {}


def register_mode(mode: Mode) -> Mode:
    """Make a mode known; called once by its file."""
    MODES[mode.name] = mode
    return mode


def get_mode(name: str) -> Mode:
    """The mode of that name; LostattnError lists the known ones."""
    if name not in MODES:
        raise LostattnError(f"unknown mode '{name}': choose one of {', '.join(sorted(MODES))}")
    return MODES[name]


def option(context: ImageContext, name: str) -> Any:
    """Value of one of the plan's mode options."""
    return context.plan.options[name]
