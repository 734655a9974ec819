"""The models that are compared: folder, name, plan, shape, and what tells one folder from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..patches.errors import LostattnError
from ..patches.plan import Plan
from .disk import disk_errors, read_json
from .shape import Shape, model_shape

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
_SMALL, _SAMPLE = 32 * 2**20, 2**16  # bytes


@dataclass(frozen=True)
class Side:
    """One of the compared models; the first one is the original."""

    name: str
    folder: Path
    config: dict[str, Any]
    plan: Plan | None
    shape: Shape

    @property
    def visual_tokens(self) -> set[int]:
        """Ids of the tokens that stand for visual tokens of images and videos in prompts."""
        video = self.config.get("video_token_id", self.config.get("video_token_index"))
        return {self.image_token} | ({int(video)} if video is not None else set())

    @property
    def image_token(self) -> int:
        """Id of the token that stands for a visual token in prompts."""
        if (result := image_token(self.config)) is None:
            raise LostattnError(f"config.json in {self.folder} names no image_token_id: get it again from its source")
        return result

    @property
    def longest(self) -> int | None:
        """Positions that the decoder knows, as far as config.json says."""
        text = self.config.get("text_config")
        result = (text if isinstance(text, dict) else self.config).get("max_position_embeddings")
        return result if isinstance(result, int) else None


def image_token(config: Mapping[str, Any]) -> int | None:
    """Id of the token that stands for a visual token, as far as config.json names it."""
    result = config.get("image_token_id", config.get("image_token_index"))
    return result if isinstance(result, int) else None


def read_sides(base: str | Path, patched: Sequence[str | Path]) -> list[Side]:
    """The original first. Names are those of the folders, numbered where they repeat.

    Raises:
        LostattnError: no model folder, a BASE that is patched, a model of another shape, no patched model at all.
    """
    if not patched:
        raise LostattnError("there is nothing to compare: give BASE and at least one other model folder")
    sides = [_read(Path(folder)) for folder in (base, *patched)]
    if sides[0].plan is not None:
        raise LostattnError(f"BASE has to be the original, and {base} is patched: give the plain model first")
    for side in sides[1:]:
        if (side.shape.family.name, side.shape.layers) != (sides[0].shape.family.name, sides[0].shape.layers):
            raise LostattnError(
                f"{side.folder} is no relative of BASE (other family or depth): compare models made from one original"
            )
    return _named(sides)


def _read(folder: Path) -> Side:
    if not (folder / "config.json").is_file():
        raise LostattnError(f"{folder} is not a model folder: it has no config.json")
    config = read_json(folder / "config.json", f"config.json in {folder}")
    if not isinstance(config, dict):
        raise LostattnError(f"config.json in {folder} is not a JSON object")
    patched = str(config.get("model_type", "")).startswith("sap_")
    plan = Plan.from_json(config.get("sap")) if patched else None
    return Side(folder.resolve().name, folder, config, plan, model_shape(config))


def _named(sides: list[Side]) -> list[Side]:
    """With names that differ, since they are columns of tables and names of files."""
    seen: dict[str, int] = {}
    out = []
    for side in sides:
        number = seen[side.name] = seen.get(side.name, 0) + 1
        name = side.name if number == 1 else f"{side.name}-{number}"
        out.append(Side(name, side.folder, side.config, side.plan, side.shape))
    return out


def check_processors(sides: Sequence[Side]) -> None:
    """Refuse models that would see other pixels.

    Raises:
        LostattnError: the image processors' settings differ.
    """
    first = _processor(sides[0])
    for side in sides[1:]:
        if _processor(side) != first:
            raise LostattnError(
                f"{side.name} prepares pictures in another way than {sides[0].name}: both need the same "
                f"{' and '.join(PROCESSOR_FILES)}"
            )


def _processor(side: Side) -> list[Any]:
    return [read_json(p, n) if (p := side.folder / n).is_file() else None for n in PROCESSOR_FILES]


def folder_fingerprint(folder: Path) -> str:
    """Names the content of a model folder: small files whole, weights by size, header and samples."""
    digest = hashlib.sha256()
    with disk_errors(f"cannot read {folder}"):
        for path in sorted(p for p in folder.iterdir() if p.is_file()):
            size = path.stat().st_size
            digest.update(f"{path.name} {size} ".encode())
            with path.open("rb") as file:
                for start in [0] if size <= _SMALL else [0, size // 3, 2 * size // 3, size - _SAMPLE]:
                    file.seek(start)
                    digest.update(file.read(_SMALL if size <= _SMALL else _SAMPLE))
    return digest.hexdigest()


def describe_plan(plan: Plan | None) -> dict[str, Any]:
    """A plan in the words of the reports."""
    if plan is None:
        return {"mode": "none (original)", "layers": "none", "heads": "none", "whole_groups": "none"}
    layers = [str(layer) for layer in plan.layers]
    heads = f"band {plan.band.low:g}-{plan.band.high:g}" if plan.band else f"{sum(map(len, plan.heads.values()))}"
    groups = sum(len(plan.whole_groups(layer)) for layer in plan.layers)
    return {
        "mode": plan.mode,
        "preset": plan.preset,
        "scores": plan.scores,
        "queries": plan.queries,
        "layers": _ranges([int(x) for x in layers]),
        "heads": f"{heads} of {plan.num_layers * plan.num_heads}",
        "whole_groups": f"{groups} of {plan.kv_groups}",
    }


def _ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as 1-3,7."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts) or "none"
