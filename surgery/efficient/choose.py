"""From a spec to the KV groups of a plan: by name, or by a point of the measured frontier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...patches.errors import LostattnError
from ...patches.plan import Plan
from ...serving.shape import Shape
from ..calibration import Calibration
from ..ranges import parse_groups
from ..spec import PatchSpec
from .frontier import SETTINGS, Frontier, Group

KEEP_AGREEMENT = 0.99  # where a frontier is there and nothing else is asked for


def named_groups(spec: PatchSpec, shape: Shape) -> dict[int, list[int]] | None:
    """Heads of the KV groups that the spec names, None if it names none.

    Raises:
        LostattnError: layers or heads beside them, or a group that the model does not have.
    """
    result = parse_groups(spec.groups)
    if result is None:
        return None
    if spec.layers is not None or spec.heads is not None:
        raise LostattnError("--groups names the heads of whole KV groups: leave --layers and --heads out")
    for layer, groups in result.items():
        if not groups or layer not in shape.attending or not 0 <= groups[0] <= groups[-1] < shape.every[layer].kv_heads:
            raise LostattnError(
                f"--groups {layer}:{','.join(map(str, groups))} does not exist: the model has {shape.told}"
            )
    return heads_of([(layer, group) for layer, groups in result.items() for group in groups], shape)


def heads_of(groups: Sequence[Group], shape: Shape) -> dict[int, list[int]]:
    """Query heads of whole KV groups, per layer, ascending."""
    result = dict[int, list[int]]()
    for layer, group in sorted(groups):
        size = shape.heads // shape.every[layer].kv_heads
        result.setdefault(layer, []).extend(range(group * size, (group + 1) * size))
    return result


def asks_frontier(spec: PatchSpec) -> bool:
    """Whether the spec names an option that only a frontier can meet.

    Raises:
        LostattnError: the option contradicts another one.
    """
    if spec.keep_agreement is None and spec.kv_budget is None:
        return False
    if spec.preset != "efficient":
        raise LostattnError("--keep-agreement and --kv-budget choose whole KV groups: add --preset efficient")
    if spec.layers is not None or spec.heads is not None or spec.groups is not None:
        raise LostattnError(
            "--keep-agreement and --kv-budget choose the groups themselves: leave --layers, --heads and --groups out"
        )
    if spec.calibration is None:
        raise LostattnError(
            "--keep-agreement and --kv-budget read a measured frontier: make it with 'lostattn calibrate --frontier' and "
            "pass --calibration FILE"
        )
    return True


def frontier_of(spec: PatchSpec, shape: Shape, calibration: Calibration) -> Frontier | None:
    """The frontier that chooses this plan's groups, None if heads are chosen in another way.

    Raises:
        LostattnError: an option that needs a frontier that the file does not hold, or one of another model.
    """
    named = spec.layers is not None or spec.heads is not None or spec.groups is not None
    result = calibration.frontier
    if not asks_frontier(spec) and (named or result is None or not result.steps):
        return None
    if result is None:
        raise LostattnError(
            "the calibration holds no frontier: make it with 'lostattn calibrate --frontier', or choose with --groups"
        )
    beyond = [g for g in result.alone if g[0] >= shape.layers or g[1] >= shape.every[g[0]].kv_heads]
    if beyond or result.kv_groups != shape.kv_groups:
        raise LostattnError("the frontier in the calibration is of a model of another shape: calibrate this model")
    return result


def settings_of(plan: Plan) -> Mapping[str, object]:
    """What a measured harm depends on besides the groups."""
    raw = plan.to_json()
    return {name: raw.get(name, {}) for name in SETTINGS}


def steps_for(spec: PatchSpec, frontier: Frontier, plan: Plan) -> int:
    """The number of the frontier's steps that the spec asks for.

    Raises:
        LostattnError: it was measured with other settings, or no step meets the option.
    """
    frontier.check(settings_of(plan))
    if spec.keep_agreement is None and spec.kv_budget is None:
        return frontier.choose(KEEP_AGREEMENT, None)
    return frontier.choose(spec.keep_agreement, spec.kv_budget)


def told(frontier: Frontier, count: int) -> str:
    """The chosen point in a sentence."""
    harm = frontier.steps[count - 1].harm
    return (
        f"{len(frontier.chosen(count))} of {frontier.kv_groups} KV groups by the measured frontier ({frontier.samples} "
        f"questions): together they left {100 * harm.agreement:.1f} % of the original's answers as they were, mean KL "
        f"{harm.kl:.1e} nats"
    )
