"""Processors of checkpoints: how they normalise, and loading them with errors that help."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..patches.errors import LostattnError
from ..patches.plan import Pixels
from ..serving.disk import read_json


def read_pixels(folder: Path) -> Pixels | None:
    """Mean, std and rescale factor of a folder's image processor, None if it has none. Reads JSON only.

    Raises:
        LostattnError: a processor config that is not JSON, or numbers in it that cannot be.
    """
    return _read(folder, "image_processor", "preprocessor_config.json")


def read_video_pixels(folder: Path) -> Pixels | None:
    """The same of its video processor; None if it has none of its own, or one that normalises as the image processor."""
    result = _read(folder, "video_processor", "video_preprocessor_config.json")
    return None if result == read_pixels(folder) else result


def _read(folder: Path, part: str, alone: str) -> Pixels | None:
    """Numbers of a part of `processor_config.json`, or of the file that holds it alone."""
    for name in ("processor_config.json", alone):
        path = folder / name
        if not path.is_file():
            continue
        raw = read_json(path, name)
        result = (
            raw.get(part, raw if name == alone or part == "image_processor" else {}) if isinstance(raw, dict) else {}
        )
        if isinstance(result, dict) and "image_mean" in result and "image_std" in result:
            return _pixels(result, name)
    return None


def _pixels(found: dict[str, Any], name: str) -> Pixels:
    try:
        mean, std = ([float(x) for x in found[k]] for k in ("image_mean", "image_std"))
        rescale = float(found.get("rescale_factor") or 1 / 255)
        usable = len(mean) == len(std) == 3 and all(std) and all(map(math.isfinite, (*mean, *std, rescale)))
    except (TypeError, ValueError, OverflowError):
        usable = False
    if not usable:
        raise LostattnError(
            f"image_mean, image_std or rescale_factor in {name} are not usable numbers: download it again"
        )
    return Pixels((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), rescale)


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
    except Exception as error:  # whatever transformers and tokenizers raise about files that are not there or damaged
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
