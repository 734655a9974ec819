"""What a patched model remembers: settings of the model, state of a cache, facts of one forward call."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

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

    @property
    def active(self) -> bool:
        return self.heads is not None or self.band is not None


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
        offsets: layer index -> position of its first key, for layers whose window has slid past the first token.
    """

    state: CacheState
    past: int
    rows: torch.Tensor | None = None
    visual_rows_plain: bool = False
    offsets: dict[int, int] = field(default_factory=dict)
    _keys: dict[tuple[int, int, torch.device | None], tuple[torch.Tensor, torch.Tensor | None]] = field(
        default_factory=dict
    )
    _layout: list[Layout | None] = field(default_factory=list)
    _causal: dict[int, bool] = field(default_factory=dict)

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
        known = self._causal.get(id(mask))
        if known is None:
            rows, keys = mask.shape[-2:]
            wanted = torch.ones(rows, keys, dtype=torch.bool, device=mask.device).tril(total - rows)
            known = self._causal[id(mask)] = bool((mask == wanted).all())
        return known


def check_batch(state: CacheState, batch: int) -> None:
    """Refuse a cache whose batch was changed behind our back (`batch_select_indices`, `batch_repeat_interleave`)."""
    if state.prior.shape[0] != batch:
        raise LostattnError(
            f"the cache holds image priors of {state.prior.shape[0]} samples but the input has {batch}: "
            "select or repeat samples before the prompt is read, not in the cache"
        )
