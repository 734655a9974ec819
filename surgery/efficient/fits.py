"""Fitted priors as calibration files keep them: weights and levels of scores rule `fitted` for some whole KV groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...patches.errors import LostattnError
from ...patches.plan import FEATURES, MOST_LEVEL, Plan
from .frontier import SETTINGS, Group, Harm, shown

# What a fit depends on besides the groups; its scores rule is `fitted`, which has no temperature.
FIT_SETTINGS = tuple(name for name in SETTINGS if name not in ("scores", "temperature"))
HELD_OUT = 4  # every so many-th question is held out
Vectors = Mapping[int, tuple[tuple[float, ...], ...]]


@dataclass(frozen=True)
class Fit:
    """Numbers that were found for one choice of whole KV groups, and what they did on questions that were held out.

    Attributes:
        settings: of the plan, see `FIT_SETTINGS`.
        features: what is summed up, see `patches.plan.FEATURES`.
        weights, levels: as a plan has them.
        samples, held_out: questions that the numbers were found on, and others that said when to stop.
        rounds: passes over the samples up to the numbers that were kept.
        start, harm: on the questions held out, with the measured levels and no weights, and with the fit.
    """

    settings: Mapping[str, Any]
    features: tuple[str, ...]
    weights: Vectors
    levels: Mapping[int, tuple[float, ...]]
    samples: int
    held_out: int
    rounds: int
    start: Harm
    harm: Harm

    def applied(self, plan: Plan) -> Plan:
        """The plan, of the same whole KV groups, with scores rule `fitted`."""
        return replace(
            plan,
            scores="fitted",
            temperature=1.0,
            features=self.features,
            weights=dict(self.weights),
            levels=dict(self.levels),
        )

    @property
    def groups(self) -> tuple[Group, ...]:
        """The (layer, KV head) pairs that it is for, ascending."""
        result = self.settings["groups"]
        return tuple((layer, g) for layer in sorted(self.weights) for g in result[str(layer)])

    def check(self, settings: Mapping[str, Any]) -> None:
        """LostattnError unless the fit was made with the settings of a plan (see `FIT_SETTINGS`)."""
        for name in FIT_SETTINGS:
            if settings[name] != self.settings[name]:
                raise LostattnError(
                    f"the fit in the calibration was made with {name} {shown(self.settings[name])}, and this plan has "
                    f"{shown(settings[name])}: choose the same, or run 'lostattn calibrate --fit' with it"
                )

    def to_json(self) -> dict[str, Any]:
        """JSON form; float32 numbers come back as they were."""
        return {
            "settings": dict(self.settings),
            "features": list(self.features),
            "weights": {str(x): [[_short(a) for a in v] for v in vs] for x, vs in sorted(self.weights.items())},
            "levels": {str(x): [_short(a) for a in v] for x, v in sorted(self.levels.items())},
            "samples": self.samples,
            "held_out": self.held_out,
            "rounds": self.rounds,
            "start": _harm_json(self.start),
            "harm": _harm_json(self.harm),
        }

    @classmethod
    def from_json(cls, raw: Any) -> Fit:
        """Read what `to_json` wrote. Raises LostattnError for anything else."""
        try:
            features = tuple(raw["features"])
            weights = {int(x): tuple(_numbers(v, len(features)) for v in vs) for x, vs in raw["weights"].items()}
            levels = {int(x): _numbers(v, len(v)) for x, v in raw["levels"].items()}
            settings = {name: raw["settings"][name] for name in (*FIT_SETTINGS, "groups")}
            groups = {int(x): [int(g) for g in gs] for x, gs in settings["groups"].items()}
            samples, held_out, rounds = counts = [raw[name] for name in ("samples", "held_out", "rounds")]
            if not set(features) <= set(FEATURES) or not set(weights) == set(levels) == set(groups):
                raise ValueError("unknown features, or layers that differ")
            if len(raw) != 9 or any(len(groups[x]) != len(weights[x]) for x in weights):
                raise ValueError("numbers of groups that differ")
            if not all(type(n) is int and n >= 0 for n in counts):
                raise ValueError("a number is missing or none")
            start, harm = _harm(raw["start"]), _harm(raw["harm"])
            return cls(settings, features, weights, levels, samples, held_out, rounds, start, harm)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise LostattnError("a fit in the calibration is damaged: make it anew") from error


def check_enough(questions: int) -> None:
    """LostattnError for fewer questions than a fit can be made and judged on."""
    if questions < 2 * HELD_OUT:
        raise LostattnError(
            f"a fit needs at least {2 * HELD_OUT} questions, not {questions}: raise --samples, or give more data"
        )


def settings_for(plan: Plan) -> dict[str, Any]:
    """What a fit of this plan's whole KV groups depends on, and the groups themselves."""
    raw = plan.to_json()
    groups = {str(layer): list(plan.whole_groups(layer)) for layer in plan.layers}
    return {name: raw.get(name, {}) for name in FIT_SETTINGS} | {"groups": groups}


def fit_for(fits: Sequence[Fit], plan: Plan) -> Fit:
    """The fit that was made for exactly the KV groups of a plan.

    Raises:
        LostattnError: none was, it was made with other settings, or the plan patches more than whole groups.
    """
    if any(map(plan.outside_whole_groups, plan.layers)):
        raise LostattnError(
            "scores rule 'fitted' is for whole KV groups: choose with --groups, --kv-budget or --heads all"
        )
    wanted = settings_for(plan)
    groups = tuple((layer, g) for layer in plan.layers for g in plan.whole_groups(layer))
    same = [f for f in fits if f.groups == groups]
    if not same:
        sizes = ", ".join(str(sum(map(len, f.weights.values()))) for f in fits)
        has = f"it has fits of {sizes} other groups" if fits else "it holds no fit"
        raise LostattnError(
            f"the calibration has no fit of exactly these {len(groups)} KV groups ({has}): run 'lostattn calibrate --fit' with "
            "the same --groups or --kv-budget"
        )
    same[-1].check(wanted)
    return same[-1]


def _short(x: float) -> float:
    return float(f"{x:.9g}")


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    results = tuple(float(x) for x in values)
    if len(results) != count or not all(abs(x) <= MOST_LEVEL for x in results):
        raise ValueError("numbers that no plan has")
    return results


def _harm_json(harm: Harm) -> dict[str, float]:
    return {k: float(f"{v:.7g}") for k, v in asdict(harm).items()}


def _harm(raw: Mapping[str, Any]) -> Harm:
    result = Harm(float(raw["kl"]), float(raw["agreement"]), float(raw["tokens"]))
    if not (0 <= result.kl < float("inf") and 0 <= result.agreement <= 1 and 0 <= result.tokens <= 1):
        raise ValueError("a harm out of range")
    return result
