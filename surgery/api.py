"""What `import lostattn` gives: patch, plan, load, and a plan on a model in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..patches.errors import LostattnError
from ..patches.family import get_family
from ..patches.plan import Plan
from .efficient.swap import swapping
from .patch import patch_from_spec, prepare
from .spec import PatchSpec


def patch(source: str | Path, out: str | Path, options: PatchSpec | None = None, **changes: Any) -> Plan:
    """Write a patched checkpoint: the same as `lostattn patch`.

    Args:
        source: folder or Hub id of a plain checkpoint. out: the patched folder to be written.
        options: None for those of preset `paper`. changes: of its fields, such as `layers="1-27"`; `revision`, `weights`,
            `force`, `allow_code` and `full_hash` are those of the command.

    Returns:
        The plan that the checkpoint carries.

    Raises:
        LostattnError: any mistake, in one sentence; nothing is written then.
    """
    spec, rest = _split(options, changes, ("revision", "weights", "force", "allow_code", "full_hash"))
    return patch_from_spec(source, out, spec, **rest)[0].planned.plan


def plan(source: str | Path, options: PatchSpec | None = None, **changes: Any) -> Plan:
    """The plan that `patch` would carry out; nothing is written. Arguments as there; heads that have to be ranked without a
    calibration load the model. Raises LostattnError as `patch` does."""
    spec, rest = _split(options, changes, ("revision", "allow_code"))
    return prepare(source, spec, **rest).planned.plan


@contextmanager
def applied(model: Any, plan: Plan) -> Iterator[Any]:
    """Let a plain model of transformers obey a plan while the block runs; afterwards it is bit for bit what it was.

    Args:
        model: of one of the families, with its language model head. plan: as `plan` gives it for this model.

    Yields:
        The same model.

    Raises:
        LostattnError: a model of another family or shape, or one that is patched already.
    """
    family = get_family(plan.family)
    if type(model) is not family.plain_class:
        raise LostattnError(
            f"the plan is for a plain {family.plain_class.__name__}, and the model is a {type(model).__name__}: load the plain "
            "model with transformers"
        )
    text = model.config.get_text_config()
    if (text.num_hidden_layers, text.num_attention_heads) != (plan.num_layers, plan.num_heads):
        raise LostattnError(
            f"the plan is for {plan.num_layers} layers of {plan.num_heads} heads, and the model has {text.num_hidden_layers} "
            f"of {text.num_attention_heads}: make the plan from this model's own checkpoint"
        )
    with swapping(model, plan) as swap:
        swap(plan)
        yield model


def _split(
    options: PatchSpec | None, changes: Mapping[str, Any], others: tuple[str, ...]
) -> tuple[PatchSpec, dict[str, Any]]:
    """Changed options, and arguments that are none."""
    rest = {name: value for name, value in changes.items() if name in others}
    mine = {name: value for name, value in changes.items() if name not in others}
    known = PatchSpec.__dataclass_fields__
    unknown = sorted(set(mine) - set(known))
    if unknown:
        raise LostattnError(f"'{unknown[0]}' is no option: choose from {', '.join([*known, *others])}")
    return replace(options or PatchSpec(), **mine), rest
