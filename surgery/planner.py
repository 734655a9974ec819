"""From a spec and a model's config to an exact plan; no weights are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..patches.errors import LostattnError
from ..patches.family import Family
from ..patches.heads import in_band
from ..patches.mode import get_mode
from ..patches.plan import Band, Plan
from .calibration import Calibration
from .processing import read_pixels
from .ranges import Heads, format_numbers, parse_heads, parse_layers
from .shape import Shape, model_shape
from .spec import PatchSpec


@dataclass(frozen=True)
class Planned:
    """A plan and what the user should be told about how it came about."""

    plan: Plan
    notes: list[str] = field(default_factory=list)


def make_plan(
    spec: PatchSpec, config: Mapping[str, Any], folder: Path | None, calibrate: Callable[[], Calibration] | None = None
) -> Planned:
    """Resolve every wish.

    Args:
        config: parsed config.json of the source.
        folder: the source's folder, for the image normalisation; None if it is not at hand.
        calibrate: called if measured statistics are needed and the spec names no calibration file.

    Raises:
        LostattnError: unknown names, layers or heads out of range, wishes that contradict each other.
    """
    shape = model_shape(config)
    mode = get_mode(spec.mode)
    notes: list[str] = []
    scores = spec.scores or _default_scores(spec.preset, shape.family)
    heads_wish = parse_heads(spec.heads)
    layers = _layers(spec, shape, heads_wish, notes)
    if heads_wish is None:
        heads_wish = shape.family.heads
    needs_band = isinstance(heads_wish, tuple)
    dynamic = needs_band and (spec.dynamic or (spec.preset == "reference" and spec.calibration is None))
    if spec.dynamic and not needs_band:
        raise LostattnError("--dynamic chooses the heads of a band anew: give --heads as a band such as 0.3-0.6")
    if dynamic and spec.preset == "efficient":
        raise LostattnError("preset 'efficient' needs static heads: leave --dynamic out, or take preset 'paper'")
    if dynamic and scores == "log":
        raise LostattnError("scores rule 'log' needs levels of known heads: use static heads, or another scores rule")
    found = _Statistics(spec, shape, calibrate)
    band = None
    if dynamic:
        assert isinstance(heads_wish, tuple)
        band = Band(*heads_wish, rank_by=_rank_by(spec))
        chosen: dict[int, tuple[int, ...]] = dict.fromkeys(layers, ())
    else:
        chosen = _static_heads(spec, shape, layers, heads_wish, found, notes)
    levels = {}
    if scores == "log" and chosen:
        measured = found.get().level
        levels = {layer: tuple(measured[layer][h] for h in heads) for layer, heads in chosen.items()}
    plan = Plan(
        family=shape.family.name, mode=mode.name, preset=spec.preset, scores=scores,
        queries=spec.queries or ("last" if spec.preset == "reference" else "all"), num_layers=shape.layers,
        num_heads=shape.heads, num_kv_heads=shape.kv_heads, heads=chosen, band=band, blend=float(spec.blend),
        seed=spec.seed, temperature=float(spec.temperature), levels=levels,
        options=mode.settle(spec.preset, spec.options), pixels=read_pixels(folder) if folder is not None else None,
    )  # fmt: skip
    return Planned(plan, notes)


def _default_scores(preset: str, family: Family) -> str:
    if preset == "reference":
        return "prob_rescaled" if family.rescaled else "prob"
    return "raw" if preset == "paper" else "log"


def _rank_by(spec: PatchSpec) -> str:
    return spec.rank_by or ("score" if spec.preset == "reference" else "mass")


def _layers(spec: PatchSpec, shape: Shape, heads: Heads | None, notes: list[str]) -> list[int]:
    """Affected layers; a default that exceeds the model is clipped, and that is said."""
    asked = parse_layers(spec.layers, shape.layers)
    if isinstance(heads, Mapping):
        named = parse_layers(list(heads), shape.layers) or []
        if asked is not None and asked != named:
            raise LostattnError(
                f"--layers names {format_numbers(asked)} but --heads names {format_numbers(named)}: leave --layers out"
            )
        return named
    if asked is not None:
        return asked
    first, last = shape.family.layers
    found = list(range(first, min(last, shape.layers - 1) + 1))
    if not found:
        raise LostattnError(
            f"the default layers {first}-{last} of family '{shape.family.name}' lie behind this model's last layer "
            f"{shape.layers - 1}: choose with --layers"
        )
    if found[-1] < last:
        notes.append(
            f"the default layers {first}-{last} of family '{shape.family.name}' are clipped to "
            f"{format_numbers(found)}: the model has {shape.layers} layers"
        )
    return found


class _Statistics:
    """Measured statistics, read or measured when first needed."""

    def __init__(self, spec: PatchSpec, shape: Shape, calibrate: Callable[[], Calibration] | None) -> None:
        self.spec, self.shape, self.calibrate = spec, shape, calibrate
        self.found: Calibration | None = None

    def get(self) -> Calibration:
        if self.found is None:
            if self.spec.calibration is not None:
                self.found = Calibration.read(self.spec.calibration)
            elif self.calibrate is not None:
                self.found = self.calibrate()
            else:
                raise LostattnError(
                    "this plan needs measured statistics: make them with 'lostattn calibrate' and pass --calibration FILE, "
                    "or choose --heads all, lists of heads, or --dynamic"
                )
            self.found.check(self.shape.family.name, self.shape.layers, self.shape.heads)
        return self.found


def _static_heads(
    spec: PatchSpec, shape: Shape, layers: list[int], wish: Heads, found: _Statistics, notes: list[str]
) -> dict[int, tuple[int, ...]]:
    if wish == "all":
        return {layer: tuple(range(shape.heads)) for layer in layers}
    if isinstance(wish, Mapping):
        chosen = {layer: tuple(heads) for layer, heads in wish.items() if heads}
        if spec.preset == "efficient":
            _check_whole_groups(chosen, shape)
        return chosen
    band = Band(*wish, rank_by=_rank_by(spec))  # type: ignore[misc]
    if not layers:
        return {}
    statistics = found.get()
    ranking = statistics.ranking(band.rank_by)
    group = shape.heads // shape.kv_heads
    chosen = {}
    for layer in layers:
        values = torch.tensor(ranking[layer], dtype=torch.float64)
        if spec.preset == "efficient":  # whole groups only, ranked by the mean of their heads
            groups = in_band(values.view(-1, group).mean(-1), band).nonzero()[:, 0].tolist()
            heads = tuple(h for g in groups for h in range(g * group, (g + 1) * group))
        else:
            heads = tuple(in_band(values, band).nonzero()[:, 0].tolist())
        if heads:
            chosen[layer] = heads
    if dropped := [layer for layer in layers if layer not in chosen]:
        notes.append(
            f"the band {band.low}-{band.high} holds no head in layers {format_numbers(dropped)}: they stay as they are"
        )
    notes.append(f"heads ranked by {band.rank_by} on {statistics.samples} samples ({statistics.data})")
    return chosen


def _check_whole_groups(chosen: Mapping[int, tuple[int, ...]], shape: Shape) -> None:
    group = shape.heads // shape.kv_heads
    for layer, heads in chosen.items():
        touched = {h // group for h in heads}
        if len(touched) * group != len(heads):
            raise LostattnError(
                f"preset 'efficient' patches whole KV groups of {group} heads, but the heads of layer {layer} leave one "
                "incomplete: complete it, or take preset 'paper'"
            )
