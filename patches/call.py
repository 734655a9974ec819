"""What a patched model remembers: settings of the model, state of a cache, facts of one forward call."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import transformers

from .attention_inputs import Layout
from .errors import LostattnError
from .plan import Band, one_of

PATHS = ("auto", "closed", "any_mask", "eager")


@dataclass
class PathSettings:
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

    `heads` is bool (H,), `listed` the same as numbers; `levels` (H,) or None; `weights` (Hkv, F) of scores rule `fitted`, 0
    where no head is patched, or None.
    """

    settings: PathSettings
    heads: torch.Tensor | None
    levels: torch.Tensor | None = None
    band: Band | None = None
    listed: tuple[int, ...] | None = None
    two_sided: bool = False
    rescale: bool = False
    blend: float = 1.0
    weights: torch.Tensor | None = None

    _copies: dict[torch.device, tuple[torch.Tensor | None, ...]] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        return self.heads is not None or self.band is not None

    def on(self, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor | None, ...]:
        """`heads`, `levels` and `weights` on a device, copied once; the last two in at least `dtype` if that is float64."""
        if device not in self._copies:
            parts = (self.heads, self.levels, self.weights)
            self._copies[device] = tuple(x if x is None else x.to(device) for x in parts)
        heads, *numbers = self._copies[device]
        return heads, *(x.double() if x is not None and dtype == torch.float64 else x for x in numbers)


@dataclass
class CacheState:
    """What a patched model remembers of the tokens in a cache; an attribute of the cache, so that it lives and dies with it.

    Attributes:
        prior: (B, P) float32, NaN on text; P is the cache length when the last image came in, later keys are text. P is 0
            as long as no image was read.
        exact: (B, P) bool, tokens whose scores were given as injected, or None.
        features: (B, P, F) float32 for scores rule `fitted`, 0 on text and on exact tokens, or None.
        summaries: layer index -> (mean, log mass) of all visual values, filled at the first decode step.
        length: tokens that the model has read into the cache.
        plan: digest of the plan that the model obeyed.
    """

    prior: torch.Tensor
    exact: torch.Tensor | None = None
    summaries: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    length: int = 0
    plan: str = ""
    features: torch.Tensor | None = None

    @property
    def has_image(self) -> bool:
        """True if visual tokens are among those read."""
        return self.prior.shape[1] > 0

    def extended(self, tokens: int) -> CacheState:
        """The state after that many more text tokens."""
        return replace(self, length=self.length + tokens)

    def indexed(self, rows: torch.Tensor) -> CacheState:
        """The state of a cache whose samples are now these rows of the old one."""
        at = rows.to(self.prior.device)
        summaries = {k: (v[0][rows.to(v[0].device)], v[1][rows.to(v[1].device)]) for k, v in self.summaries.items()}
        exact = None if self.exact is None else self.exact[at]
        features = None if self.features is None else self.features[at]
        return replace(self, prior=self.prior[at], exact=exact, features=features, summaries=summaries)

    def cropped(self, length: int) -> CacheState:
        """The state of a cache that now holds `length` tokens."""
        if length >= self.prior.shape[1]:
            return replace(self, length=length)
        prior = self.prior[:, :length]
        if not bool((~prior.isnan()).any()):
            return CacheState(self.prior[:, :0], length=length, plan=self.plan)
        exact = None if self.exact is None else self.exact[:, :length]
        features = None if self.features is None else self.features[:, :length]
        return CacheState(prior, exact, length=length, plan=self.plan, features=features)


@dataclass
class Call:
    """Facts of one forward call of the decoder, shared by its layers.

    Attributes:
        state: prior of all keys of this call; None if no image has been seen.
        past: keys that were in the cache before, int.
        rows: patched query rows, bool (B, Sq), or None for all.
        visual_rows_plain: rows leaves out exactly the visual rows (`after_image`).
        last: last real row of every sample, int64 (B,), or None if it is the last row of all (no right padding).
        offsets: layer index -> position of its first key, for layers whose window has slid past the first token.
        size: query rows of the call, or None where nobody checks them.
        counts: layer index -> keys that its cache will hand out, for layers where that is not `past + size`.
    """

    state: CacheState | None
    past: int
    rows: torch.Tensor | None = None
    visual_rows_plain: bool = False
    last: torch.Tensor | None = None
    offsets: dict[int, int] = field(default_factory=dict)
    size: int | None = None
    counts: dict[int, int] = field(default_factory=dict)
    _keys: dict[tuple[int, int, torch.device | None], tuple[torch.Tensor, torch.Tensor | None]] = field(
        default_factory=dict
    )
    _features: dict[tuple[int, int, torch.device | None], torch.Tensor] = field(default_factory=dict)
    _layouts: dict[tuple[int, int], Layout | None] = field(default_factory=dict)
    _seen: dict[tuple[int, int, int], tuple[torch.Tensor, Layout | None]] = field(default_factory=dict)

    def check(self, layer: int, rows: int, keys: int) -> None:
        """Hold what a layer was given against what the model knows of its cache.

        Raises:
            LostattnError: other query rows than those of the call, or other keys than its cache holds.
        """
        if self.size is None:
            return
        known = self.counts.get(layer, self.past + self.size)
        if (rows, keys) != (self.size, known):
            raise LostattnError(
                f"layer {layer} got {rows} query rows and {keys} keys, but the patched model knows of {self.size} rows and "
                f"{known} keys: its cache did not reach it under transformers {transformers.__version__}; install a tested "
                "version, or pass the cache as 'cache' or 'past_key_values'"
            )

    def keys(
        self, layer: int, count: int, device: torch.device | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Prior (B, count) and exact flags of the keys that a layer sees; keys without an entry are text."""
        assert self.state is not None
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

    def features(self, layer: int, count: int, device: torch.device | None = None) -> torch.Tensor | None:
        """Features (B, count, F) of the keys that a layer sees, as `keys`, or None."""
        assert self.state is not None
        if self.state.features is None:
            return None
        start = self.offsets.get(layer, 0)
        known = (start, count, device)
        if known not in self._features:
            part = self.state.features[:, start : start + count]
            self._features[known] = torch.nn.functional.pad(part, (0, 0, 0, count - part.shape[1])).to(device)
        return self._features[known]

    def seen(self, layer: int, mask: torch.Tensor | None, rows: int, keys: int) -> Layout | None:
        """Where the visual keys of a layer lie and what a mask (B or 1, 1, Sq, K or more) shows; worked out once per mask.

        Returns:
            None where samples differ, or for a mask that no layout can tell.
        """
        start = self.offsets.get(layer, 0)
        if mask is None:
            return None if start and rows > 1 else self._layout(layer, start, keys)
        known = (id(mask), start, keys)
        if known not in self._seen:
            layout = self._layout(layer, start, keys)
            result = None if layout is None else layout.matching(mask)
            self._seen[known] = mask, result  # the mask is kept, so its id stays its own
        return self._seen[known][1]

    def _layout(self, layer: int, start: int, keys: int) -> Layout | None:
        if (start, keys) not in self._layouts:
            prior, _ = self.keys(layer, keys)
            self._layouts[start, keys] = Layout.of(~prior.isnan())
        return self._layouts[start, keys]


def held_by(cache: Any) -> int:
    """Tokens in a cache; 0 without one. Raises LostattnError where the caches of this transformers do not tell."""
    return 0 if cache is None else int(_told(cache, "get_seq_length"))


def sizes_of(cache: Any, rows: int, layer: int) -> tuple[int, int]:
    """Keys that a layer will get from its cache in a call of `rows` rows, and the position of the first. As `held_by`."""
    count, start = _told(cache, "get_mask_sizes", rows, layer)
    return int(count), int(start)


def _told(cache: Any, what: str, *args: Any) -> Any:
    try:
        return getattr(cache, what)(*args)
    except (AttributeError, TypeError, NotImplementedError) as error:
        raise LostattnError(
            f"{type(cache).__name__} of transformers {transformers.__version__} has no {what} as tested versions have it "
            f"({error}): install a tested version, or patch the source again with a newer lostattn"
        ) from error


def state_of(cache: Any, plan: str, batch: int) -> CacheState | None:
    """What was remembered of the tokens in a cache, held against the cache itself; None if it holds none.

    Args:
        cache: a cache, or None.
        plan: digest of the model's plan.
        batch: samples of the call.

    Raises:
        LostattnError: tokens of which nothing was remembered, or more or fewer tokens than were.
    """
    if cache is None:
        return None
    held, state = held_by(cache), getattr(cache, "sap_state", None)
    if state is None and not held:
        return None
    again = "begin with an empty cache, or with one that this patched model has filled"
    if not isinstance(state, CacheState):
        reader = "another model" if state is None else "a model of another copy of lostattn"
        raise LostattnError(f"the cache holds {held} tokens of {reader}, of which this model kept no state: {again}")
    if state.plan != plan:
        raise LostattnError(f"the cache was filled by a model with another plan: {again}")
    if held != state.length:
        raise LostattnError(
            f"the cache holds {held} tokens, but its state is of {state.length}: it was changed by something else than this "
            f"patched model and the cache's own crop, reset and batch methods; {again}"
        )
    if state.prior.shape[0] != batch:
        raise LostattnError(
            f"the cache holds image priors of {state.prior.shape[0]} samples but the input has {batch}: "
            "give one input row per sample of the cache"
        )
    return state


class Following:
    """One method of a cache that moves, drops or forgets tokens, followed by the same for its state. Survives a deep copy."""

    def __init__(self, cache: Any, name: str) -> None:
        self.cache, self.name = cache, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = held_by(self.cache)
        out = getattr(type(self.cache), self.name)(self.cache, *args, **kwargs)
        state: CacheState | None = getattr(self.cache, "sap_state", None)
        if (
            state is not None and state.length == before
        ):  # else it does not belong to the cache, which the next call tells
            self.cache.sap_state = self._moved(state, *args, **kwargs)
        return out

    def _moved(self, state: CacheState, *args: Any, **kwargs: Any) -> CacheState | None:
        held = held_by(self.cache)
        if self.name in ("crop", "reset"):
            return state.cropped(held) if held else None
        argument = next(iter((*args, *kwargs.values())))
        if self.name == "batch_repeat_interleave":
            argument = torch.arange(state.prior.shape[0], device=state.prior.device).repeat_interleave(argument)
        return state.indexed(argument)


FOLLOWED = ("crop", "reset", "reorder_cache", "batch_select_indices", "batch_repeat_interleave")


def remember(cache: Any, state: CacheState | None) -> None:
    """Put a state on a cache, and keep it in step with what the cache's own methods do to its tokens."""
    cache.sap_state = state
    for name in FOLLOWED:
        if hasattr(type(cache), name) and name not in vars(cache):
            setattr(cache, name, Following(cache, name))
