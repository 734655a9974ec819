"""Calibration files: what was measured of every head of a model on image-question pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..patches.errors import LostattnError
from ..patches.plan import MOST_LEVEL, one_of
from .efficient.fits import Fit
from .efficient.frontier import Frontier

FORMAT = 1
STATISTICS = ("mass", "score", "visual_mass", "level")
Table = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Calibration:
    """Means over samples; every table has one row per layer and one number per query head, no number for layers without
    attention.

    Attributes:
        family, num_layers, num_heads: of the model that was measured.
        samples: number of image-question pairs.
        data: where they came from.
        mass: minus the mean normalised attention of the last prompt row on non-visual keys (paper C.3).
        score: minus the mean raw score of that row on non-visual keys (authors' code).
        visual_mass: share of attention that text rows behind the image pay to visual keys.
        level: log-sum-exp of the visual scores of these rows: the level that lets a `log` prior keep the visual mass.
        versions: of the programs that measured.
        frontier: what patching whole KV groups does to the output, if that was measured.
        num_kv_heads: of the model that was measured; 0 in files of older versions.
        fits: weights and levels of scores rule `fitted`, for some choices of KV groups.
        weights: `weights_identity` of the model that was measured; empty in files of older versions.
    """

    family: str
    num_layers: int
    num_heads: int
    samples: int
    data: str
    mass: Table
    score: Table
    visual_mass: Table
    level: Table
    versions: dict[str, Any] = field(default_factory=dict)
    frontier: Frontier | None = None
    num_kv_heads: int = 0
    weights: str = ""
    fits: tuple[Fit, ...] = ()

    def ranking(self, rank_by: str) -> Table:
        """The table that heads are ranked by."""
        one_of("rank_by", rank_by, ("mass", "score"))
        return self.mass if rank_by == "mass" else self.score

    def check(self, family: str, layers: int, heads: int, kv_heads: int = 0, weights: str = "") -> None:
        """LostattnError unless the file belongs to a model of this shape and these weights (as far as both are known)."""
        if (self.family, self.num_layers, self.num_heads) != (family, layers, heads):
            raise LostattnError(
                f"the calibration is of a {self.family} with {self.num_layers} layers and {self.num_heads} heads, the model is "
                f"a {family} with {layers} and {heads}: calibrate this model"
            )
        if self.num_kv_heads and kv_heads and self.num_kv_heads != kv_heads:
            raise LostattnError(
                f"the calibration is of a model with {self.num_kv_heads} KV heads, this one has {kv_heads}: calibrate this model"
            )
        if self.weights and weights and self.weights != weights:
            raise LostattnError(
                "the calibration was measured on other weights than these (the shape is the same): calibrate this model"
            )

    def to_json(self) -> dict[str, Any]:
        """JSON form, numbers rounded to 7 digits."""
        raw = asdict(replace(self, frontier=None, fits=()))
        del raw["frontier"], raw["fits"]
        raw = {key: value for key, value in raw.items() if value or key not in ("weights", "num_kv_heads")}
        for name in STATISTICS:
            raw[name] = [[float(f"{x:.7g}") for x in row] for row in raw[name]]
        results = {"format": FORMAT, **raw}
        if self.frontier is not None:
            results["frontier"] = self.frontier.to_json()
        return {**results, "fits": [fit.to_json() for fit in self.fits]} if self.fits else results

    @classmethod
    def read(cls, path: str | Path) -> Calibration:
        """Read a file that `lostattn calibrate` wrote.

        Raises:
            LostattnError: no such file, not a calibration, tables of the wrong shape.
        """
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise LostattnError(f"cannot read the calibration {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise LostattnError(f"the calibration {path} is not JSON: make it with 'lostattn calibrate'") from error
        if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
            raise LostattnError(f"{path} is not a calibration of format {FORMAT}: make it with 'lostattn calibrate'")
        frontier, fits = raw.pop("frontier", None), raw.pop("fits", [])
        if not isinstance(fits, list):
            raise LostattnError(f"the calibration {path} is damaged: make it anew")
        kept = tuple(Fit.from_json(fit) for fit in fits)
        try:
            result = cls(**raw, frontier=None if frontier is None else Frontier.from_json(frontier), fits=kept)
        except TypeError as error:
            raise LostattnError(f"the calibration {path} misses or invents fields: make it anew") from error
        if not result._whole():
            raise LostattnError(f"the calibration {path} is damaged: make it anew")
        if any(abs(x) > MOST_LEVEL for row in result.level for x in row):
            raise LostattnError(
                f"the calibration {path} holds levels beyond {MOST_LEVEL:g}, which no softmax of float32 can use: make it anew"
            )
        return result

    def _whole(self) -> bool:
        """Every field of its kind, every table full of finite numbers."""
        counts = (self.num_layers, self.num_heads, self.samples)
        if not all(isinstance(n, int) and n > 0 for n in counts) or not isinstance(self.family, str):
            return False
        if not isinstance(self.weights, str) or type(self.num_kv_heads) is not int or self.num_kv_heads < 0:
            return False
        tables = [getattr(self, name) for name in STATISTICS]
        return all(_is_list(table, self.num_layers) for table in tables) and all(
            (row == [] or _is_list(row, self.num_heads))
            and all(isinstance(x, int | float) and abs(x) < 1e300 for x in row)
            for table in tables
            for row in table
        )


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length
