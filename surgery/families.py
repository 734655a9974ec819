"""What every family can do, for `lostattn families`: read from the files that do it, so that new families appear unasked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

from ..patches.discover import FOLDER
from ..patches.errors import LostattnError
from ..serving.engine.versions import check_served, check_vllm, installed_vllm
from .written import written

MEASURED = ("llava", "llava_onevision", "qwen2_5_vl")  # families for which the paper's tables choose layers and heads


@dataclass(frozen=True)
class Tried:
    """When a family last passed its tests, and beside which releases.

    Attributes:
        day: as 2026-11-29.
        transformers: its release.
        vllm: its release (CPU build); empty where the family is not served.
    """

    day: str
    transformers: str
    vllm: str = ""


TRIED = {
    "gemma3": Tried("2026-11-30", "5.19.0"),
    "gemma4": Tried("2026-11-30", "5.19.0"),
    "glm46v": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "glm4v": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "glm4v_moe": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "glm_ocr": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "idefics3": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "internvl": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "llava": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "llava_next": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "llava_onevision": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "mistral3": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "qwen2_5_vl": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "qwen2_vl": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "qwen3_5": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "qwen3_5_moe": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "qwen3_vl": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "qwen3_vl_moe": Tried("2026-11-30", "5.19.0", "0.32.0"),
    "smolvlm": Tried("2026-11-30", "5.19.0", "0.32.0"),
}
NEVER = Tried("never", "")


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
        prefill: the form that prompts with pictures take: `closed`, or `closed, both ways` where image tokens see all of
            their image.
        layers, heads: the default range, clipped to a model's depth, and percentile band.
        defaults_from: where these come from.
        reference: the scores rule of preset `reference`.
        tried: when it last passed its tests, and beside which releases.
        lines: of its file in `patches/`, and of its file in `serving/engine/models/` (0 without one).
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
    tried: Tried
    lines: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """For `--json`: engines with their state first."""
        result = asdict(self)
        result["transformers"] = {"runs": True, "modes": self.transformers}
        result["vllm"] = {"runs": bool(self.vllm), "modes": self.vllm, "reason": result.pop("vllm_reason") or None}
        return result


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
    result = installed_vllm()
    return " ".join(result) if result else ""


def _state(family: SimpleNamespace, modes: Sequence[SimpleNamespace]) -> FamilyState:
    served, reason = _served(family.name, modes)
    videos = getattr(family, "videos", True)  # what is written there is code, which is not among the values
    return FamilyState(
        family=family.name,
        models=family.title,
        text_models=tuple(family.text_models),
        towers=tuple(family.towers),
        transformers=tuple(mode.name for mode in modes),
        vllm=served,
        vllm_reason=reason,
        video="with priors" if videos else family.video,
        prefill="closed, both ways" if family.both_ways else "closed",
        layers=family.layers,
        heads=family.heads,
        defaults_from="the paper's tables" if family.name in MEASURED else "taken over from a relative in the paper",
        reference="prob_rescaled" if family.rescaled else "prob",
        tried=TRIED.get(family.name, NEVER),
        lines=_lines(family.name),
    )


def _lines(name: str) -> tuple[int, int]:
    """Lines of a family's two files, blank ones and comments among them."""
    files = FOLDER / f"family_{name}.py", FOLDER.parent / "serving" / "engine" / "models" / f"{name}.py"
    first, second = (len(f.read_text(encoding="utf-8").splitlines()) if f.is_file() else 0 for f in files)
    return first, second


def markdown_table(states: Sequence[FamilyState]) -> str:
    """The table of `docs/families.md`; `python -m lostattn.surgery.families` prints it."""
    rows = [
        f"| `{s.family}` | {s.models} | {s.prefill} | {'served' if s.vllm else 'not served'} | {s.lines[0]} | "
        f"{s.lines[1] or ''} | {s.tried.day}: transformers {s.tried.transformers}{', vLLM ' * bool(s.tried.vllm)}{s.tried.vllm} |"
        for s in states
    ]
    head = "| family | models | prefill | vLLM | lines in `patches/` | lines in `serving/engine/models/` | last tried |"
    return "\n".join([head, "|---|---|---|---|---:|---:|---|", *rows])


def _served(name: str, modes: Sequence[SimpleNamespace]) -> tuple[tuple[str, ...], str]:
    """Modes that vLLM runs for a family, and the reason why others do not."""
    try:
        check_served(name)
    except LostattnError as error:
        return (), str(error)
    asking = [m.name for m in modes if m.needs]
    served = tuple(m.name for m in modes if not m.needs)
    return served, f"{', '.join(asking)}: takes its prior from the caller, which no request can give" if asking else ""


if __name__ == "__main__":
    print(markdown_table(family_states()))
