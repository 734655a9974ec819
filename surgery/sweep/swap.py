"""One model in memory, one plan after the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from ...patches.errors import LostattnError
from ...patches.family import get_family
from ...patches.install import install
from ...patches.plan import Plan, one_of
from ...serving.cause import cause
from ..chat import DTYPES, Chat, torch_device, without_progress_bars
from ..processing import load_processor


def load_with_plan(
    folder: Path, config: Mapping[str, Any], plan: Plan, dtype: str = "auto", device: str = "cpu"
) -> Chat:
    """A plain checkpoint loaded into the patched class, as if it had been exported with that plan; nothing is written.

    Raises:
        LostattnError: what keeps it from loading, with the mend.
    """
    family = get_family(plan.family)
    one_of("dtype", dtype, DTYPES)
    raw = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    patched = family.config_class.from_dict({**raw, "sap": plan.to_json()})
    processor = load_processor(folder)
    try:
        with without_progress_bars():
            model, info = AutoModelForImageTextToText.from_pretrained(
                folder,
                config=patched,
                trust_remote_code=False,
                output_loading_info=True,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            )
            model = model.to(torch_device(device)).eval()
    except LostattnError:
        raise
    except Exception as error:  # whatever transformers, safetensors or a device raise
        raise LostattnError(f"cannot load {folder}: {cause(error)}") from error
    if wrong := sorted([*info["missing_keys"], *info["unexpected_keys"]]):
        raise LostattnError(f"the weights in {folder} do not fit the model: {', '.join(wrong[:5])} ({len(wrong)} keys)")
    return Chat(model, processor, True)


def swap_plan(model: Any, plan: Plan) -> None:
    """Make a patched model obey another plan, as if it had been loaded with it; caches of the old plan are void.

    Raises:
        LostattnError: the plan is of another family or shape; the model then keeps its plan.
    """
    install(model, plan)
    model.config.sap = plan.to_json()
