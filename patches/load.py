"""Loading a patched checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForImageTextToText

from .errors import LostattnError


def load_patched(directory: str | Path, **from_pretrained_kwargs: Any) -> Any:
    """Load a patched checkpoint with the installed lostattn; no remote code is run.

    Args:
        directory: local folder or Hub id.
        from_pretrained_kwargs: passed on to transformers (`dtype`, `device_map`, `revision`, `attn_implementation`, ...).

    Returns:
        The patched model in eval mode. ``model.sap_plan`` is its plan, ``model.sap_settings`` tells and forces the path.

    Raises:
        LostattnError: not a patched checkpoint, weights that are missing or left over, or a quantised form that needs a
            package which is not installed.
    """
    if from_pretrained_kwargs.pop("trust_remote_code", False):
        raise LostattnError("load_patched runs no code of the checkpoint: leave trust_remote_code out")
    if from_pretrained_kwargs.pop("output_loading_info", False):
        raise LostattnError("load_patched checks the loading info itself: leave output_loading_info out")
    known = ("revision", "cache_dir", "local_files_only", "token", "subfolder")
    config = AutoConfig.from_pretrained(
        directory, trust_remote_code=False, **{k: v for k, v in from_pretrained_kwargs.items() if k in known}
    )
    if not config.model_type.startswith("sap_"):
        raise LostattnError(
            f"{directory} is not a patched checkpoint (model_type '{config.model_type}'): "
            "make one with 'lostattn patch', or load it with transformers itself"
        )
    from_pretrained_kwargs |= _quantised(config, directory)
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            directory, trust_remote_code=False, output_loading_info=True, **from_pretrained_kwargs
        )
    except ImportError as error:  # a package that the weights' form needs
        raise LostattnError(f"cannot load {directory}: {' '.join(str(error).split())}") from error
    wrong = sorted([*info["missing_keys"], *info["unexpected_keys"]])
    if wrong:
        raise LostattnError(
            f"the weights in {directory} do not fit the model: {', '.join(wrong[:5])} ({len(wrong)} keys)"
        )
    return model.eval()


def _quantised(config: Any, directory: str | Path) -> dict[str, Any]:
    """What `from_pretrained` has to be given for quantised weights.

    compressed-tensors would undo them in the model's first call, which comes too late for a quantised vision tower: `generate`
    calls it before the model. So they are undone while loading, which takes no more memory than the first call would.
    """
    form = getattr(config, "quantization_config", None)
    if not isinstance(form, dict) or form.get("quant_method") != "compressed-tensors":
        return {}
    if form.get("kv_cache_scheme") is not None:
        raise LostattnError(
            f"{directory} asks for a quantised KV cache (kv_cache_scheme), which transformers cannot give to a vision-language "
            "model: serve it in vLLM with --kv-cache-dtype bfloat16"
        )
    config.quantization_config = {**form, "dequantize": True}
    return {"config": config}
