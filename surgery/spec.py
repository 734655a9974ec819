"""The spec: the options of a user, as written on the command line, in YAML or in Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ..patches.errors import LostattnError
from ..patches.plan import PRESETS, QUERIES, RANK_BY, SCORES, one_of
from .ranges import Heads, parse_groups, parse_heads, whole_numbers
from .yaml_file import read_yaml, to_yaml

# Beyond these float32 makes 0, infinity or NaN of prior numbers divided by a temperature.
COLDEST, HOTTEST = 1e-30, 1e30


@dataclass(frozen=True)
class PatchSpec:
    """All options of a patch; None means what preset and family say.

    Attributes:
        preset: `paper`, `reference` or `efficient` (docs/priors.md).
        mode: where the prior comes from (`lostattn modes`).
        layers: `1-27`, `all`, `none`, or a list of numbers.
        heads: `all`, a percentile band `0.3-0.6` or (0.3, 0.6), or `3:0,1,5;4:2` or {3: [0, 1, 5], 4: [2]}.
        rank_by: `mass` (paper) or `score` (authors' code).
        dynamic: choose the heads of a band anew at every step (preset `reference` does, unless a calibration is given).
        calibration: a file made by `lostattn calibrate`.
        scores: `raw`, `prob`, `prob_rescaled`, `log`, or `fitted` (docs/priors.md).
        queries: `all`, `after_image` or `last`.
        blend: lambda in [0, 1]; 1 replaces, 0 changes nothing.
        seed: of mode `noise`.
        temperature: of the softmax in scores rules `prob`, `prob_rescaled`, `log`.
        options: options of the mode.
        keep_agreement: preset `efficient`: share of calibration answers that have to stay (docs/priors.md).
        kv_budget: preset `efficient`: share of the visual tokens' KV cache that may be left.
        groups: whole KV groups by name, `3:0,1;5:1` or {3: [0, 1], 5: [1]}, instead of layers and heads.
    """

    preset: str = "paper"
    mode: str = "patch_complexity"
    layers: str | int | Iterable[int] | None = None
    heads: Heads | None = None
    rank_by: str | None = None
    dynamic: bool | None = None
    calibration: str | None = None
    scores: str | None = None
    queries: str | None = None
    blend: float = 1.0
    seed: int = 0
    temperature: float = 1.0
    options: Mapping[str, str] = field(default_factory=dict)
    keep_agreement: float | None = None
    kv_budget: float | None = None
    groups: str | Mapping[int, Iterable[int]] | None = None

    def __post_init__(self) -> None:
        self._check_words()
        self._check_numbers()
        if self.dynamic is not None and not isinstance(self.dynamic, bool):
            raise LostattnError(f"dynamic must be true or false, not {self.dynamic!r:.80}")
        if not isinstance(self.options, Mapping):
            raise LostattnError(f"options must be a mapping of names to values, not {self.options!r:.80}")
        # read once, and plain from here on: numpy's numbers and generators cannot be written as YAML
        if self.layers is not None and not isinstance(self.layers, str):
            object.__setattr__(self, "layers", whole_numbers(self.layers, "layers"))
        if not isinstance(self.heads, str):
            object.__setattr__(self, "heads", parse_heads(self.heads))
        if not isinstance(self.groups, str):
            object.__setattr__(self, "groups", parse_groups(self.groups))

    def _check_words(self) -> None:
        for name in ("preset", "mode", "rank_by", "scores", "queries", "calibration"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name in ("preset", "mode")):
                raise LostattnError(f"{name} must be text, not {value!r:.80}")
            if value is not None and not value.strip():
                raise LostattnError(f"{name} is empty (an unset shell variable?): leave it out, or give a value")
        one_of("preset", self.preset, PRESETS)
        for name, known in (("rank_by", RANK_BY), ("scores", SCORES), ("queries", QUERIES)):
            if (value := getattr(self, name)) is not None:
                one_of(name, value, known)

    def _check_numbers(self) -> None:
        kinds: tuple[tuple[str, type, type], ...] = (
            ("blend", Real, float),
            ("temperature", Real, float),
            ("seed", Integral, int),
        )
        for name, kind, make in kinds:
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise LostattnError(f"{name} must be a {'whole ' if make is int else ''}number, not {value!r:.80}")
            try:
                object.__setattr__(self, name, make(value))
            except OverflowError as error:
                raise LostattnError(f"{name} is too large") from error
        object.__setattr__(self, "blend", self.blend + 0.0)  # -0.0 is 0
        if not COLDEST <= self.temperature <= HOTTEST:
            raise LostattnError(
                f"temperature must be positive and lie between {COLDEST:g} and {HOTTEST:g}, where float32 can divide by it, "
                f"not {self.temperature}"
            )
        for name in ("keep_agreement", "kv_budget"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
                raise LostattnError(f"{name} must be a share between 0 and 1, not {value!r:.80}")
            object.__setattr__(self, name, float(value))

    def with_changes(self, **changes: Any) -> PatchSpec:
        """The spec with every change that is not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


def read_spec(path: str | Path) -> PatchSpec:
    """Read a YAML spec file.

    Raises:
        LostattnError: no such file, not YAML, unknown keys, values that cannot be.
    """
    raw = read_yaml(path, "the spec file")
    known = [f.name for f in fields(PatchSpec)]
    if unknown := sorted(str(k) for k in raw if k not in known):
        raise LostattnError(f"the spec file {path} has unknown keys {', '.join(unknown)}: known are {', '.join(known)}")
    spec = PatchSpec(**{k: v for k, v in raw.items() if v is not None})
    if spec.calibration is not None:  # as written, relative to the spec file
        spec = replace(spec, calibration=str(Path(path).parent / spec.calibration))
    return spec


def spec_text(spec: PatchSpec) -> str:
    """The spec as YAML, without what is left to preset and family."""
    default = PatchSpec()
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    changed = {k: v for k, v in values.items() if k in ("preset", "mode") or v != getattr(default, k)}
    if spec.calibration is not None:
        changed["calibration"] = Path(spec.calibration).name
    return to_yaml(_plain(changed))


def _plain(value: Any) -> Any:
    """Tuples and mappings as YAML knows them."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
