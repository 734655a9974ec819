"""A plan and its provenance in words."""

from __future__ import annotations

from ..patches.plan import Plan
from .checkpoint.manifest import Manifest
from .ranges import format_numbers

QUERIES = {
    "all": "all query rows",
    "after_image": "text rows behind the image",
    "last": "the last prompt row and generated rows",
}


def describe_plan(plan: Plan) -> list[str]:
    """The plan as lines of text: what is replaced, where, by what."""
    options = "".join(f", {k}={v}" for k, v in plan.options.items())
    lines = [
        f"family {plan.family}, preset {plan.preset}, mode {plan.mode}{options}, scores {plan.scores}, "
        f"{QUERIES[plan.queries]}, blend {plan.blend:g}, seed {plan.seed}",
    ]
    if plan.inert:
        return [*lines, "changes nothing: " + ("no layers" if not plan.heads else "blend is 0")]
    if plan.band is not None:
        return [
            *lines,
            f"layers {format_numbers(plan.layers)}: heads between the quantiles {plan.band.low:g} and {plan.band.high:g}, ranked "
            f"by {plan.band.rank_by} anew at every step (saves nothing)",
        ]
    if plan.features:
        lines.append(
            f"a visual token scores a weighted sum of {', '.join(plan.features)} (weights per KV head) and a level"
        )
    total = sum(len(h) for h in plan.heads.values())
    groups = sum(len(plan.whole_groups(layer)) for layer in plan.layers)
    lines.append(
        f"{total} of {plan.num_layers * plan.num_heads} heads in {len(plan.layers)} of {plan.num_layers} layers; "
        f"{groups} of {plan.kv_groups} KV groups are whole (only these can save KV memory)"
    )
    for layer in plan.layers:
        whole = plan.whole_groups(layer)
        mark = f"  whole KV groups {format_numbers(whole)}" if whole else ""
        lines.append(f"  layer {layer:3d}: heads {format_numbers(plan.heads[layer])}{mark}")
    return lines


def describe_origin(record: Manifest) -> list[tuple[str, str]]:
    """Where a patched checkpoint comes from, as (what, value)."""
    base = {f"base {k}": str(v) for k, v in record.base.items() if v}
    versions = ", ".join(f"{k} {v}" for k, v in record.versions.items())
    facts = {
        **base,
        "command": record.command,
        "created": record.created,
        "lostattn": record.lostattn,
        "versions": versions,
        "left at home": ", ".join(sorted(record.left_out)),
    }
    return [(k, v) for k, v in facts.items() if v]
