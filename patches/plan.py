"""The plan: which attention of which model is replaced by what. It lives in ``config.json`` under ``sap``."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from .errors import LostattnError
from .plan_fields import check_fields

FORMAT = 1
PRESETS = ("paper", "reference", "efficient")
SCORES = ("raw", "prob", "prob_rescaled", "log", "fitted")
QUERIES = ("all", "after_image", "last")
RANK_BY = ("mass", "score")
# A level is a log-sum-exp of scores: beyond, float32 has no digits left for the differences between scores.
MOST_LEVEL = 1e4
# What scores rule `fitted` may sum up, see `features.image_features`.
FEATURES = ("fewness", "prior", "row", "column", "row_squared", "column_squared")


@dataclass(frozen=True)
class Band:
    """Heads chosen at run time: those whose ranking lies between two quantiles of their layer, both ends included."""

    low: float
    high: float
    rank_by: str = "mass"

    def __post_init__(self) -> None:
        if not (0.0 <= self.low <= self.high <= 1.0):
            raise LostattnError(f"a head band needs 0 <= low <= high <= 1, not {self.low}-{self.high}")
        one_of("rank_by", self.rank_by, RANK_BY)


@dataclass(frozen=True)
class Pixels:
    """How the image processor normalised RGB: ``x = (rgb * rescale - mean) / std``, rgb in 0..255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float = 1 / 255

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not all(self.std) or not self.rescale:
            raise LostattnError(
                "the image normalisation needs three means, three standard deviations and a factor, none 0"
            )


@dataclass(frozen=True)
class Plan:
    """Everything that decides what a patched model computes, exact, for one model.

    ``heads`` maps a layer to its patched query heads (static choice). With ``band`` the heads are chosen anew in every
    forward call and ``heads`` maps each affected layer to an empty tuple. ``levels`` holds, for scores rule ``log``, one
    number per entry of ``heads``. Scores rule ``fitted`` gives visual token j the score
    ``sum_k weights[layer][g][k] * feature_k(j) + level`` in every patched head of KV head g: ``features`` names what is summed
    up (`FEATURES`), ``weights`` holds, per layer, one vector for each KV head that serves a patched head, ascending, and
    ``levels`` one number per patched head. ``layer_kv_heads`` holds the KV heads of layers that have another number of them
    than ``num_kv_heads``, 0 for layers without attention. ``pixels`` is how pixels are normalised; ``video_pixels`` how those
    of videos are, where that differs. Raises LostattnError for any value that no model could run.
    """

    family: str
    mode: str
    preset: str
    scores: str
    queries: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    heads: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    band: Band | None = None
    blend: float = 1.0
    seed: int = 0
    temperature: float = 1.0
    levels: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    weights: Mapping[int, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    pixels: Pixels | None = None
    video_pixels: Pixels | None = None
    layer_kv_heads: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("preset", self.preset, PRESETS)
        one_of("scores", self.scores, SCORES)
        one_of("queries", self.queries, QUERIES)
        if not 0.0 <= self.blend <= 1.0:
            raise LostattnError(f"blend must lie in [0, 1], not {self.blend}")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise LostattnError(f"temperature must be positive and finite, not {self.temperature}")
        if self.num_layers < 1 or self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads or self.num_heads < 1:
            raise LostattnError(
                f"num_layers {self.num_layers}, num_heads {self.num_heads} and num_kv_heads {self.num_kv_heads} fit no model: "
                "they are at least 1, and query heads are a multiple of KV heads"
            )
        if not 0 <= self.seed < 2**63:
            raise LostattnError(f"seed must lie in [0, 2^63), not {self.seed}")
        for layer, count in self.layer_kv_heads.items():
            if not 0 <= layer < self.num_layers or count < 0 or (count and self.num_heads % count):
                raise LostattnError(f"{count} KV heads in layer {layer} fit no model of {self.num_heads} query heads")
        for layer, heads in self.heads.items():
            self._check_heads(layer, heads)
        for layer, levels in self.levels.items():
            if len(levels) != len(self.heads.get(layer, ())) or not all(abs(x) <= MOST_LEVEL for x in levels):
                raise LostattnError(
                    f"levels of layer {layer} must be one finite number per patched head, within {MOST_LEVEL:g} of 0"
                )
        self._check_fitted()

    def _check_heads(self, layer: int, heads: tuple[int, ...]) -> None:
        if not 0 <= layer < self.num_layers:
            raise LostattnError(f"layer {layer} does not exist: the model has layers 0-{self.num_layers - 1}")
        if not self.kv_heads(layer):
            raise LostattnError(
                f"layer {layer} has no attention whose scores could be replaced (it keeps a state of fixed size): layers that "
                f"can be patched are {', '.join(str(i) for i in range(self.num_layers) if self.kv_heads(i))}"
            )
        if self.band is not None and heads:
            raise LostattnError("a plan has either static heads or a dynamic band, not both")
        if self.band is None and not heads:
            raise LostattnError(f"layer {layer} of a static plan names no heads")
        if list(heads) != sorted(set(heads)) or any(not 0 <= h < self.num_heads for h in heads):
            raise LostattnError(
                f"heads of layer {layer} must be ascending and within 0-{self.num_heads - 1}, not {list(heads)}"
            )

    def _check_fitted(self) -> None:
        """Weights are there, and whole, exactly where scores rule `fitted` asks for them."""
        if self.scores != "fitted":
            if self.features or self.weights:
                raise LostattnError(
                    f"scores rule '{self.scores}' takes no features and weights: they belong to 'fitted'"
                )
            return
        for name in self.features:
            one_of("feature", name, FEATURES)
        if not self.features or len(set(self.features)) != len(self.features):
            raise LostattnError("scores rule 'fitted' needs the names of its features, each once")
        if self.band is not None or self.temperature != 1.0:
            raise LostattnError("scores rule 'fitted' needs static heads, and has no temperature")
        if set(self.weights) != set(self.heads) or set(self.levels) != set(self.heads):
            raise LostattnError(
                "scores rule 'fitted' needs weights and levels for exactly the layers that have patched heads"
            )
        for layer, vectors in self.weights.items():
            right = [len(v) == len(self.features) and all(abs(x) <= MOST_LEVEL for x in v) for v in vectors]
            if len(vectors) != len(self.kv_heads_of(layer)) or not all(right):
                raise LostattnError(
                    f"weights of layer {layer} must be one vector per KV head with a patched head, each of {len(self.features)} "
                    f"finite numbers within {MOST_LEVEL:g} of 0"
                )

    @property
    def layers(self) -> tuple[int, ...]:
        """Affected layers, ascending."""
        return tuple(sorted(self.heads))

    @property
    def inert(self) -> bool:
        """True if the plan changes nothing: no layers, or blend 0."""
        return not self.heads or self.blend == 0.0

    @property
    def dynamic(self) -> bool:
        """True if heads are chosen anew in every forward call."""
        return self.band is not None

    @cached_property
    def digest(self) -> str:
        """sha256 of the plan's canonical JSON."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def kv_heads_of(self, layer: int) -> tuple[int, ...]:
        """KV heads of a layer that serve a patched query head, ascending."""
        size = self.num_heads // max(self.kv_heads(layer), 1)
        return tuple(sorted({h // size for h in self.heads.get(layer, ())}))

    def kv_heads(self, layer: int) -> int:
        """KV heads of a layer; 0 if it has no attention."""
        return self.layer_kv_heads.get(layer, self.num_kv_heads)

    @property
    def kv_groups(self) -> int:
        """(layer, KV head) pairs of the whole model."""
        return sum(self.kv_heads(layer) for layer in range(self.num_layers))

    def whole_groups(self, layer: int) -> tuple[int, ...]:
        """KV heads of a layer all of whose query heads are patched; only these can save KV memory."""
        count = self.kv_heads(layer)
        size = self.num_heads // max(count, 1)
        heads = set(self.heads.get(layer, ()))
        return tuple(g for g in range(count) if all(h in heads for h in range(g * size, (g + 1) * size)))

    def outside_whole_groups(self, layer: int) -> int:
        """Patched heads of a layer whose KV group is not wholly patched."""
        heads = len(self.heads.get(layer, ()))
        return heads - len(self.whole_groups(layer)) * self.num_heads // self.kv_heads(layer) if heads else 0

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON: layers as string keys, tuples as lists, absent parts left out."""
        raw = asdict(self)
        raw["heads"] = {str(layer): list(self.heads[layer]) for layer in self.layers}
        raw["levels"] = {str(layer): list(levels) for layer, levels in sorted(self.levels.items())}
        raw["weights"] = {str(layer): [list(v) for v in vectors] for layer, vectors in sorted(self.weights.items())}
        raw["features"] = list(self.features)
        raw["layer_kv_heads"] = {str(layer): count for layer, count in sorted(self.layer_kv_heads.items())}
        raw["options"] = dict(self.options)
        for name, result in (("pixels", self.pixels), ("video_pixels", self.video_pixels)):
            if result is not None:
                raw[name] = {"mean": list(result.mean), "std": list(result.std), "rescale": result.rescale}
        return {"format": FORMAT} | {k: v for k, v in raw.items() if v not in (None, {}, []) or k == "heads"}

    @classmethod
    def from_json(cls, raw: Any) -> Plan:
        """Read what `to_json` wrote.

        Raises:
            LostattnError: not a plan, a newer format, an unknown or missing key, a value of the wrong kind.
        """
        if not isinstance(raw, Mapping):
            raise LostattnError("config.json has no plan under 'sap': this is not a patched checkpoint")
        if raw.get("format") != FORMAT:
            raise LostattnError(
                f"the plan has format {raw.get('format')}, this lostattn reads {FORMAT}: update lostattn"
            )
        values = {k: v for k, v in raw.items() if k != "format"}
        check_fields(values, {f.name for f in fields(cls)})
        values["heads"] = {int(k): tuple(v) for k, v in values["heads"].items()}
        values["levels"] = {int(k): tuple(float(x) for x in v) for k, v in values.get("levels", {}).items()}
        values["features"] = tuple(values.get("features", ()))
        values["weights"] = {
            int(k): tuple(tuple(float(x) for x in v) for v in vectors)
            for k, vectors in values.get("weights", {}).items()
        }
        values["layer_kv_heads"] = {int(k): v for k, v in values.get("layer_kv_heads", {}).items()}
        if values.get("band") is not None:
            values["band"] = Band(**values["band"])
        for name in ("pixels", "video_pixels"):
            if (p := values.get(name)) is not None:
                values[name] = Pixels(tuple(p["mean"]), tuple(p["std"]), float(p["rescale"]))
        return cls(**values)


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise LostattnError, listing what is known, unless value is among it."""
    if value not in known:
        raise LostattnError(f"unknown {name} '{value}': choose one of {', '.join(known)}")
