"""Processors of checkpoints: how they normalise, and loading them with errors that help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..patches.errors import LostattnError
from ..patches.plan import Pixels


def read_pixels(folder: Path) -> Pixels | None:
    """Mean, std and rescale factor of a folder's image processor, None if it has none. Reads JSON only.

    Raises:
        LostattnError: a processor config that is not JSON.
    """
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise LostattnError(f"{name} of the source is not JSON: download it again") from error
        found = raw.get("image_processor", raw) if isinstance(raw, dict) else {}
        if isinstance(found, dict) and "image_mean" in found and "image_std" in found:
            mean, std = (tuple(float(x) for x in found[k]) for k in ("image_mean", "image_std"))
            rescale = float(found.get("rescale_factor") or 1 / 255)
            if len(mean) == len(std) == 3 and all(std) and rescale:
                return Pixels(mean, std, rescale)
    return None


def load_processor(folder: str | Path) -> Any:
    """AutoProcessor of a folder, never running code from it.

    Raises:
        LostattnError: no processor in the folder, or torchvision is missing.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except ImportError as error:
        raise LostattnError(
            "the processor of this model needs torchvision: pip install the torchvision that matches your torch "
            "(for torch 2.13 it is 0.28)"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise LostattnError(
            f"the folder {Path(folder).name} has no usable processor (preprocessor_config.json, tokenizer): "
            "copy these files from the model's repository into it"
        ) from error
    if not hasattr(processor, "image_processor"):
        raise LostattnError(
            f"the folder {Path(folder).name} has a tokenizer but no image processor: add preprocessor_config.json"
        )
    processor.tokenizer.padding_side = "left"
    return processor
