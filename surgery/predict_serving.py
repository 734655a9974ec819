"""`lostattn plan --gpu`: a plan on a GPU, from the config of the model and, where they are there, the headers of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..patches.errors import LostattnError
from ..patches.plan import Plan
from ..serving.byte_model import is_closed, read_weight_bytes, stored_bytes
from ..serving.disk import read_json
from ..serving.gpus import get_gpu
from ..serving.model_size import read_size
from ..serving.roofline import Deployment, Request, Row, compare, fitting, in_16_bits
from ..serving.shape import model_shape
from .planner import make_plan
from .spec import PatchSpec

COUNTS = (1, 8, 32, 128)


@dataclass(frozen=True)
class ServingPrediction:
    """What a plan does on a GPU, by arithmetic."""

    on: Deployment
    request: Request
    rows: list[Row]
    fit: tuple[int, int]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Figures, what they were computed from, and the assumptions."""
        on = self.on
        rows = [
            asdict(row) | {"prefill_ratio": row.prefill_ratio, "decode_ratio": row.decode_ratio} for row in self.rows
        ]
        return {
            "gpu": asdict(on.gpu),
            "tensor_parallel": on.ranks,
            "assumptions": asdict(on.assumed),
            "model": asdict(on.size) | {"decode_bytes": on.decode_bytes, "all_bytes": on.all_bytes},
            "request": asdict(self.request),
            "rows": rows,
            "notes": self.notes,
            "fit": {"original": self.fit[0], "patched": self.fit[1]},
        }


def plan_of_config(folder: Path, spec: PatchSpec) -> tuple[Plan, list[str], Mapping[str, Any]]:
    """A plan from config.json alone, its notes, and the config.

    Raises:
        LostattnError: the plan needs weights, to rank heads or as a calibration's identity.
    """
    config = _config(folder)
    if str(config.get("model_type", "")).startswith("sap_"):
        raise LostattnError("the config is of a patched model: give that of its original")
    planned = make_plan(spec, config, folder)
    note = "there are no weights: their bytes are counted from config.json, and whether they fit it was not checked"
    return planned.plan, [*planned.notes, note], config


def _config(folder: Path) -> Mapping[str, Any]:
    config = read_json(folder / "config.json", "config.json")
    if not isinstance(config, dict):
        raise LostattnError("config.json is not a JSON object: get it again from its source")
    return config


def predict_serving(
    plan: Plan, config: Mapping[str, Any], weights: Path | None, gpu: str, ranks: int, text: int, visual: int
) -> ServingPrediction:
    """Of a plan on `ranks` GPUs.

    Args:
        config: parsed config.json of the plain model.
        weights: the folder with its safetensors files, None if they are not here.
        gpu: a name of `serving/gpus.py`.
        text, visual: tokens of a request; a quarter of the text stands in front of the image.

    Raises:
        LostattnError: heads that cannot be shared out; a quantised model without its weights.
    """
    shape = in_16_bits(model_shape(config))
    size = read_size(config, shape)
    if weights is not None:
        decode, every = read_weight_bytes(weights, shape.dtype_bytes), stored_bytes(weights, shape.dtype_bytes)
    elif config.get("quantization_config"):
        raise LostattnError("the model is quantised, and config.json alone does not tell its bytes: get its weights")
    else:
        decode, every = (size.decoder + size.head) * shape.dtype_bytes, size.total * shape.dtype_bytes
    on = Deployment(get_gpu(gpu), shape, size, decode, every, ranks)
    request = Request(text // 4, visual, text - text // 4)
    fit = fitting(on, None, request), fitting(on, plan, request)
    return ServingPrediction(on, request, compare(on, plan, request, COUNTS), fit, _notes(plan, on, fit))


def _notes(plan: Plan, on: Deployment, fit: tuple[int, int]) -> list[str]:
    notes = []
    if not plan.inert and not is_closed(plan):
        notes.append(
            "no kernel computes this plan in closed form: it saves nothing there, and what its own scores and steps outside "
            "CUDA graphs cost is not in the figures"
        )
    if not any(fit):
        notes.append(
            f"the weights ({on.all_bytes / 1e9:.1f} GB) leave no room for a request on {on.ranks} x {on.gpu.name}: more "
            "--tensor-parallel, or a GPU with more memory"
        )
    return notes
