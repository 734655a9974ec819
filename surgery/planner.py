"""From a spec and a model's config to an exact plan; no weights are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ..patches.decoder import other_kv_heads
from ..patches.errors import LostattnError
from ..patches.family import Family
from ..patches.heads import in_band
from ..patches.mode import get_mode
from ..patches.plan import Band, Plan
from ..serving.byte_model import owning
from ..serving.shape import Shape, model_shape
from .calibration import Calibration
from .efficient.choose import asks_frontier, frontier_of, heads_of, named_groups, steps_for, told
from .efficient.fits import fit_for
from .efficient.frontier import Frontier
from .processing import read_pixels, read_video_pixels
from .ranges import Heads, format_numbers, parse_heads, parse_layers
from .spec import PatchSpec


@dataclass(frozen=True)
class Planned:
    """A plan and what the user should be told about how it came about.

    `frontier` is what chose the KV groups, `steps` how far along it the plan went.
    """

    plan: Plan
    notes: list[str] = field(default_factory=list)
    frontier: Frontier | None = None
    steps: int = 0


def make_plan(
    spec: PatchSpec,
    config: Mapping[str, Any],
    folder: Path | None,
    calibrate: Callable[[], Calibration] | None = None,
    identity: Callable[[], str] | None = None,
) -> Planned:
    """Resolve every option.

    Args:
        config: parsed config.json of the source.
        folder: the source's folder, for the image normalisation; None if it is not at hand.
        calibrate: called if measured statistics are needed and the spec names no calibration file.
        identity: tells which weights the model has (`weights_identity`), so that a calibration of others is refused.

    Raises:
        LostattnError: unknown names, layers or heads out of range, options that contradict each other.
    """
    shape = model_shape(config)
    notes: list[str] = []
    scores = _scores(spec, shape.family)
    # a fitted plan is planned as the one of rule `log` that its fit began with, and takes the fit's numbers in the end
    first = "log" if scores == "fitted" else scores
    empty = _empty_plan(spec, shape, first, folder)  # refuses what no measurement could mend, before measuring
    statistics = _Statistics(spec, shape, calibrate, identity, notes)
    frontier, steps = _frontier(spec, shape, empty, statistics)
    if frontier is not None:
        wanted: Heads | None = heads_of(frontier.chosen(steps), shape)
        notes.append(told(frontier, steps))
    else:
        named = named_groups(spec, shape)
        wanted = parse_heads(spec.heads) if named is None else named
    layers = _layers(spec, shape, wanted, notes)
    if wanted is None:
        wanted = shape.family.heads
    dynamic = _dynamic(spec, wanted, scores)
    notes += _unused(spec, wanted, dynamic, scores, read=frontier is not None)
    if isinstance(wanted, tuple):
        band = Band(*wanted, rank_by=_rank_by(spec))
        if dynamic:
            plan = replace(empty, heads=dict.fromkeys(layers, ()), band=band if layers else None)
        else:
            plan = replace(empty, heads=_heads_in_band(spec, shape, layers, band, statistics, notes))
    else:
        plan = replace(empty, heads=_named_heads(wanted, layers, shape))
    if spec.preset == "efficient":
        _check_whole_groups(plan)
    if scores == "fitted" and plan.heads:
        plan = fit_for(statistics.get().fits, plan).applied(plan)
    elif first == "log" and plan.heads:
        measured = statistics.get().level
        levels = {layer: tuple(measured[layer][h] for h in heads) for layer, heads in plan.heads.items()}
        plan = replace(plan, levels=levels)
    notes += _half_shared(plan, shape)
    if folder is not None and plan.pixels is None and plan.heads:
        notes.append(
            "the source does not say how its images are normalised (no preprocessor_config.json): a mode that looks at "
            "pixels will refuse to run unless use_prior gives it the prior"
        )
    return Planned(plan, notes, frontier, steps)


def _half_shared(plan: Plan, shape: Shape) -> list[str]:
    """What is left in of whole groups because layers that read the same keys and values do not all patch them whole."""
    results = []
    for owner in owning(shape):
        readers = [i for i, layer in enumerate(shape.every) if layer.source == owner]
        groups: list[set[int]] = [set(plan.whole_groups(i)) for i in readers]
        half = set[int]().union(*groups) - groups[0].intersection(*groups)
        if half and not plan.dynamic:
            results.append(
                f"layers {format_numbers(readers)} read the same keys and values: KV heads {format_numbers(sorted(half))} are "
                "whole groups in some of them alone, so they keep the images' tokens; name all of these layers to leave them out"
            )
    return results


def _frontier(
    spec: PatchSpec, shape: Shape, empty: Plan, found: _Statistics
) -> tuple[Frontier, int] | tuple[None, Literal[0]]:
    """The frontier that chooses the KV groups and how many of its steps to take; None and 0 if none does."""
    asked = asks_frontier(spec)
    if not asked and (spec.preset != "efficient" or spec.calibration is None or spec.dynamic):
        return None, 0
    frontier = frontier_of(spec, shape, found.get())
    return (None, 0) if frontier is None else (frontier, steps_for(spec, frontier, empty))


def _empty_plan(spec: PatchSpec, shape: Shape, scores: str, folder: Path | None) -> Plan:
    mode = get_mode(spec.mode)
    return Plan(
        family=shape.family.name,
        mode=mode.name,
        preset=spec.preset,
        scores=scores,
        queries=spec.queries or ("last" if spec.preset == "reference" else "all"),
        num_layers=shape.layers,
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        layer_kv_heads=other_kv_heads(shape.every),
        blend=spec.blend,
        seed=spec.seed,
        temperature=spec.temperature,
        options=mode.settle(spec.preset, spec.options),
        pixels=read_pixels(folder) if folder is not None else None,
        video_pixels=read_video_pixels(folder) if folder is not None and shape.family.videos is not None else None,
    )


def _scores(spec: PatchSpec, family: Family) -> str:
    """The scores rule: the user's, else the only one of the mode, else the preset's."""
    mode, preset = get_mode(spec.mode), spec.preset
    mode.check_scores(spec.scores, spec.blend)
    if spec.scores or mode.scores:
        return spec.scores or mode.scores
    if preset == "reference":
        return "prob_rescaled" if family.rescaled else "prob"
    return "raw" if preset == "paper" else "log"


def _rank_by(spec: PatchSpec) -> str:
    return spec.rank_by or ("score" if spec.preset == "reference" else "mass")


def _dynamic(spec: PatchSpec, heads: Heads, scores: str) -> bool:
    """Whether heads are chosen at run time; a choice of it that cannot be is refused."""
    is_band = isinstance(heads, tuple)
    by_preset = spec.preset == "reference" and spec.calibration is None
    dynamic = is_band and (by_preset if spec.dynamic is None else spec.dynamic)
    if spec.dynamic and not is_band:
        raise LostattnError("--dynamic chooses the heads of a band anew: give --heads as a band such as 0.3-0.6")
    if dynamic and spec.preset == "efficient":
        raise LostattnError("preset 'efficient' needs static heads: leave --dynamic out, or take preset 'paper'")
    if dynamic and scores in ("log", "fitted"):
        raise LostattnError(
            f"scores rule '{scores}' needs levels of known heads: add --static, or take another scores rule"
        )
    return dynamic


def _unused(spec: PatchSpec, heads: Heads, dynamic: bool, scores: str, read: bool) -> list[str]:
    """Options that this plan has no use for; `read` tells that the calibration chose the heads."""
    ranked = isinstance(heads, tuple)
    unused = {
        "--rank-by ranks the heads of a band": spec.rank_by is not None and not ranked,
        "--calibration is read for static bands and scores rule log": spec.calibration is not None
        and not read
        and (dynamic or not ranked)
        and scores not in ("log", "fitted"),
        "--temperature belongs to scores rules prob, prob_rescaled and log": spec.temperature != 1
        and scores in ("raw", "fitted"),
        "--seed belongs to mode noise": spec.seed != 0 and spec.mode != "noise",
        "--blend 0 leaves every score as it was": torch.tensor(spec.blend, dtype=torch.float32).item() == 0,
    }
    return [f"{what}: it changes nothing here" for what, true in unused.items() if true]


def _layers(spec: PatchSpec, shape: Shape, heads: Heads | None, notes: list[str]) -> list[int]:
    """Affected layers; a default that exceeds the model is clipped, and that is said."""
    asked = parse_layers(spec.layers, shape.layers)
    if isinstance(heads, Mapping):
        if nothing := sorted(int(layer) for layer, chosen in heads.items() if not list(chosen)):
            notes.append(f"no heads are named for layers {format_numbers(nothing)}: they stay as they are")
        elif not heads:
            notes.append("no layer and no head is named: the plan changes nothing")
        named = parse_layers(list(heads), shape.layers) or []
        if asked is not None and asked != named:
            raise LostattnError(
                f"--layers names {format_numbers(asked)} but --heads names {format_numbers(named)}: leave --layers out"
            )
        return named
    if asked is not None:
        return _attending(asked, spec, shape, notes)
    first, last = shape.family.layers
    results = list(range(first, min(last, shape.layers - 1) + 1))
    if not results:
        raise LostattnError(
            f"the default layers {first}-{last} of family '{shape.family.name}' lie behind this model's last layer "
            f"{shape.layers - 1}: choose with --layers"
        )
    if results[-1] < last:
        notes.append(
            f"the default layers {first}-{last} of family '{shape.family.name}' are clipped to "
            f"{format_numbers(results)}: the model has {shape.layers} layers"
        )
    return _attending(results, spec, shape, notes)


def _attending(layers: list[int], spec: PatchSpec, shape: Shape, notes: list[str]) -> list[int]:
    """Of a range those layers that have attention to patch, which is said; a layer named alone has to be one of them."""
    results = [layer for layer in layers if layer in shape.attending]
    if left := sorted(set(layers) - set(results)):
        if (
            not results
            or isinstance(spec.layers, list | int)
            or (spec.layers and "-" not in spec.layers and spec.layers != "all")
        ):
            raise LostattnError(
                f"layers {format_numbers(left)} have no attention whose scores could be replaced (they keep a state of fixed "
                f"size): layers that can be patched are {format_numbers(shape.attending)}"
            )
        notes.append(
            f"layers {format_numbers(left)} have no attention whose scores could be replaced: of the range, layers "
            f"{format_numbers(results)} are patched"
        )
    return results


class _Statistics:
    """Measured statistics, read or measured when first needed."""

    def __init__(
        self,
        spec: PatchSpec,
        shape: Shape,
        calibrate: Callable[[], Calibration] | None,
        identity: Callable[[], str] | None,
        notes: list[str],
    ) -> None:
        self.spec, self.shape, self.calibrate, self.identity, self.notes = spec, shape, calibrate, identity, notes
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
            self._check(self.found)
        return self.found

    def _check(self, found: Calibration) -> None:
        """Statistics of another model are refused; a file that does not name its weights is a note."""
        asked = self.spec.calibration is not None and self.identity is not None
        weights = self.identity() if asked and self.identity is not None and found.weights else ""
        shape = self.shape
        found.check(shape.family.name, shape.layers, shape.heads, shape.kv_heads, weights)
        if asked and not found.weights:
            self.notes.append(
                "the calibration does not say which weights it was measured on (an older lostattn made it): if they are not "
                "these, calibrate this model"
            )


def _named_heads(wanted: Heads, layers: list[int], shape: Shape) -> dict[int, tuple[int, ...]]:
    if isinstance(wanted, Mapping):
        return {layer: tuple(heads) for layer, heads in wanted.items() if heads}
    return {layer: tuple(range(shape.heads)) for layer in layers}


def _heads_in_band(
    spec: PatchSpec, shape: Shape, layers: list[int], band: Band, found: _Statistics, notes: list[str]
) -> dict[int, tuple[int, ...]]:
    if not layers:
        return {}
    statistics = found.get()
    ranking = statistics.ranking(band.rank_by)
    pick = _pick_groups if spec.preset == "efficient" else _pick_heads
    picked = {x: pick(torch.tensor(ranking[x], dtype=torch.float64), band, shape.every[x].kv_heads) for x in layers}
    chosen = {layer: heads for layer, heads in picked.items() if heads}
    dropped = [layer for layer in layers if layer not in chosen]
    if not chosen:
        raise LostattnError(
            f"the band {band.low:g}-{band.high:g} holds no head in layers {format_numbers(dropped)}: widen it (a layer has "
            f"{shape.heads} heads), or choose --layers none"
        )
    if dropped:
        notes.append(
            f"the band {band.low:g}-{band.high:g} holds no head in layers {format_numbers(dropped)}: they stay as they are"
        )
    notes.append(f"heads ranked by {band.rank_by} on {statistics.samples} samples ({statistics.data})")
    return chosen


def _pick_heads(values: torch.Tensor, band: Band, _: int) -> tuple[int, ...]:
    return tuple(in_band(values, band).nonzero()[:, 0].tolist())


def _pick_groups(values: torch.Tensor, band: Band, kv_heads: int) -> tuple[int, ...]:
    """Whole KV groups, ranked by the mean of their heads; where a narrow band falls between two, the one nearest to it."""
    size = len(values) // kv_heads
    means = values.view(-1, size).mean(-1)
    groups = in_band(means, band).nonzero()[:, 0].tolist()
    if not groups:
        place = means.argsort().argsort() / max(kv_heads - 1, 1)
        groups = [int((place - (band.low + band.high) / 2).abs().argmin())]
    return tuple(h for g in groups for h in range(g * size, (g + 1) * size))


def _check_whole_groups(plan: Plan) -> None:
    for layer in plan.layers:
        if plan.outside_whole_groups(layer):
            group = plan.num_heads // plan.kv_heads(layer)
            raise LostattnError(
                f"preset 'efficient' patches whole KV groups of {group} heads, but the heads of layer {layer} leave one "
                "incomplete: complete it, or take preset 'paper'"
            )
