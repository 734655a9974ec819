"""What a patched model remembers: settings of the model, state of a cache, facts of one forward call."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import LostattnError
from .job import Layout
from .plan import Band, one_of

PATHS = ("auto", "closed", "any_mask", "eager")


@dataclass
class Settings:
    """Shared by all patched layers of one model.

    Attributes:
        path: which form of the attention runs: `auto`, or one of `closed`, `any_mask`, `eager` by force.
        counts: how many attention calls of patched layers went through each form.
    """

    path: str = "auto"
    counts: Counter[str] = field(default_factory=Counter)

    def force(self, path: str) -> None:
        """Choose the form of the attention for the calls to come."""
        one_of("attention path", path, PATHS)
        self.path = path


@dataclass(frozen=True)
class LayerPlan:
    """The part of a plan that one attention layer obeys.

    `heads` is bool (H,), `listed` the same as numbers; `levels` (H,) or None.
    """

    settings: Settings
    heads: torch.Tensor | None
    levels: torch.Tensor | None = None
    band: Band | None = None
    listed: tuple[int, ...] | None = None
    two_sided: bool = False
    rescale: bool = False
    blend: float = 1.0

    _copies: dict[torch.device, tuple[torch.Tensor | None, torch.Tensor | None]] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        return self.heads is not None or self.band is not None

    def on(self, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """`heads` and `levels` on a device, copied once; levels in at least `dtype` if that is float64."""
        if device not in self._copies:
            self._copies[device] = tuple(x if x is None else x.to(device) for x in (self.heads, self.levels))  # type: ignore
        heads, levels = self._copies[device]
        return heads, levels.double() if levels is not None and dtype == torch.float64 else levels


@dataclass
class CacheState:
    """Prior of the tokens that a cache holds; an attribute of the cache object, so that it lives and dies with it.

    Attributes:
        prior: (B, P) float32, NaN on text; P is the cache length when the last image came in, later keys are text.
        exact: (B, P) bool, tokens whose scores were given as injected, or None.
        summaries: layer index -> (mean, log mass) of all visual values, filled at the first decode step.
    """

    prior: torch.Tensor
    exact: torch.Tensor | None = None
    summaries: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def indexed(self, rows: torch.Tensor) -> CacheState:
        """The state of a cache whose samples are now these rows of the old one."""
        at = rows.to(self.prior.device)
        summaries = {k: tuple(x[rows.to(x.device)] for x in v) for k, v in self.summaries.items()}
        return CacheState(self.prior[at], None if self.exact is None else self.exact[at], summaries)  # type: ignore[arg-type]

    def cropped(self, length: int) -> CacheState | None:
        """The state of a cache that now holds `length` tokens; None if no visual token is left."""
        if length >= self.prior.shape[1]:
            return self
        prior = self.prior[:, :length]
        if not bool((~prior.isnan()).any()):
            return None
        return CacheState(prior, None if self.exact is None else self.exact[:, :length])


@dataclass
class Call:
    """Facts of one forward call of the decoder, shared by its layers.

    Attributes:
        state: prior of all keys of this call.
        past: keys that were in the cache before, int.
        rows: patched query rows, bool (B, Sq), or None for all.
        visual_rows_plain: rows leaves out exactly the visual rows (`after_image`).
        last: last real row of every sample, int64 (B,), or None if it is the last row of all (no right padding).
        offsets: layer index -> position of its first key, for layers whose window has slid past the first token.
    """

    state: CacheState
    past: int
    rows: torch.Tensor | None = None
    visual_rows_plain: bool = False
    last: torch.Tensor | None = None
    offsets: dict[int, int] = field(default_factory=dict)
    _keys: dict[tuple[int, int, torch.device | None], tuple[torch.Tensor, torch.Tensor | None]] = field(
        default_factory=dict
    )
    _layout: list[Layout | None] = field(default_factory=list)
    _causal: dict[int, tuple[torch.Tensor, bool]] = field(default_factory=dict)

    def keys(
        self, layer: int, count: int, device: torch.device | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Prior (B, count) and exact flags of the keys that a layer sees; keys without an entry are text."""
        start = self.offsets.get(layer, 0)
        known = (start, count, device)
        if known not in self._keys:  # the same for all layers but sliding ones
            pad = torch.nn.functional.pad
            prior, exact = self.state.prior[:, start : start + count], self.state.exact
            missing = count - prior.shape[1]
            if exact is not None:
                exact = pad(exact[:, start : start + count], (0, missing), value=False).to(device)
            self._keys[known] = pad(prior, (0, missing), value=torch.nan).to(device), exact
        return self._keys[known]

    def layout(self, total: int) -> Layout | None:
        """Layout of all keys, worked out once per call."""
        if not self._layout:
            prior, _ = self.keys(-1, total)
            self._layout.append(Layout.of(~prior.isnan()))
        return self._layout[0]

    def is_plain_causal(self, mask: torch.Tensor | None, total: int) -> bool:
        """True if a mask (B, 1, Sq, K) lets row i see exactly the keys up to past + i. Worked out once per mask."""
        if mask is None:
            return True
        if mask.dtype != torch.bool:
            return False
        if id(mask) not in self._causal:
            rows, keys = mask.shape[-2:]
            wanted = torch.ones(rows, keys, dtype=torch.bool, device=mask.device).tril(total - rows)
            self._causal[id(mask)] = mask, bool((mask == wanted).all())  # the mask is kept, so its id stays its own
        return self._causal[id(mask)][1]


def check_batch(state: CacheState, batch: int) -> None:
    """Refuse a cache whose batch is another than the input's."""
    if state.prior.shape[0] != batch:
        raise LostattnError(
            f"the cache holds image priors of {state.prior.shape[0]} samples but the input has {batch}: "
            "give one input row per sample of the cache"
        )


class Following:
    """One method of a cache that moves samples, followed by the same move of its state. Survives a deep copy."""

    def __init__(self, cache: Any, name: str) -> None:
        self.cache, self.name = cache, name

    def __call__(self, argument: Any) -> None:
        getattr(type(self.cache), self.name)(self.cache, argument)
        state: CacheState | None = getattr(self.cache, "sap_state", None)
        if state is None:
            return
        if self.name == "batch_repeat_interleave":
            argument = torch.arange(state.prior.shape[0]).repeat_interleave(argument)
        self.cache.sap_state = state.indexed(argument)


def remember(cache: Any, state: CacheState | None) -> None:
    """Put a state on a cache, and keep it in step when samples are selected, repeated or reordered."""
    cache.sap_state = state
    for name in ("reorder_cache", "batch_select_indices", "batch_repeat_interleave"):
        if state is not None and hasattr(type(cache), name) and name not in vars(cache):
            setattr(cache, name, Following(cache, name))
