"""What every family can do, for `lostattn families`: read from the files that do it, so that new families appear unasked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

from ..patches.errors import LostattnError
from ..serving.engine.versions import check_served, check_vllm, installed_vllm
from .written import written

MEASURED = ("llava", "llava_onevision", "qwen2_5_vl")  # families for which the paper's tables choose layers and heads


@dataclass(frozen=True)
class FamilyState:
    """One family.

    Attributes:
        family, models: model_type, and names that users know.
        text_models, towers: model types that it covers; empty for the family's own alone.
        transformers: modes that run in transformers.
        vllm: modes that run in vLLM; empty if the family is not served there.
        vllm_reason: why it is not served, or why some modes are not.
        video: what happens with videos.
        prefill: the exact form that prompts with pictures take: `closed` (saves time), or `any-mask` (saves none).
        layers, heads: the default range, clipped to a model's depth, and percentile band.
        defaults_from: where these come from.
        reference: the scores rule of preset `reference`.
    """

    family: str
    models: str
    text_models: tuple[str, ...]
    towers: tuple[str, ...]
    transformers: tuple[str, ...]
    vllm: tuple[str, ...]
    vllm_reason: str
    video: str
    prefill: str
    layers: tuple[int, int]
    heads: tuple[float, float]
    defaults_from: str
    reference: str

    def to_json(self) -> dict[str, Any]:
        """For `--json`: engines with their state first."""
        found = asdict(self)
        found["transformers"] = {"runs": True, "modes": self.transformers}
        found["vllm"] = {"runs": bool(self.vllm), "modes": self.vllm, "reason": found.pop("vllm_reason") or None}
        return found


def family_states() -> list[FamilyState]:
    """All registered families, by name."""
    modes = written("mode")
    return [_state(family, modes) for family in written("family")]


def installed_engine() -> str:
    """The installed vLLM, or why patched models cannot be served here."""
    try:
        check_vllm()
    except LostattnError as error:
        return str(error)
    found = installed_vllm()
    return " ".join(found) if found else ""


def _state(family: SimpleNamespace, modes: Sequence[SimpleNamespace]) -> FamilyState:
    served, reason = _served(family.name, modes)
    return FamilyState(
        family=family.name,
        models=family.title,
        text_models=tuple(family.text_models),
        towers=tuple(family.towers),
        transformers=tuple(mode.name for mode in modes),
        vllm=served,
        vllm_reason=reason,
        video=family.video,
        prefill="closed" if family.plain_causal else "any-mask",
        layers=family.layers,
        heads=family.heads,
        defaults_from="the paper's tables" if family.name in MEASURED else "taken over from a relative in the paper",
        reference="prob_rescaled" if family.rescaled else "prob",
    )


def _served(name: str, modes: Sequence[SimpleNamespace]) -> tuple[tuple[str, ...], str]:
    """Modes that vLLM runs for a family, and the reason why others do not."""
    try:
        check_served(name)
    except LostattnError as error:
        return (), str(error)
    asking = [m.name for m in modes if m.needs]
    served = tuple(m.name for m in modes if not m.needs)
    return served, f"{', '.join(asking)}: takes its prior from the caller, which no request can give" if asking else ""
