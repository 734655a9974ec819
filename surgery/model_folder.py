"""What can be said of a model's folder before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from ..patches.errors import LostattnError

WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".ckpt")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def is_patched(folder: str | Path) -> bool:
    """Whether a folder holds a patched checkpoint.

    Raises:
        LostattnError: no folder, or no readable config.json in it.
    """
    path = Path(folder) / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("model_type", "")).startswith("sap_")
    except OSError as error:
        raise LostattnError(f"{folder} is not a model folder: it has no readable config.json") from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise LostattnError(f"config.json in {folder} is not a JSON object") from error


def bare_config(src: str, revision: str | None = None) -> Path | None:
    """The folder of a source that has a config.json and no weights at all; None for any other source.

    Raises:
        LostattnError: neither a folder nor a Hub id, or a revision of a folder.
    """
    from .checkpoint.source import local_folder

    folder = local_folder(src, revision)
    if folder is None or not (folder / "config.json").is_file():
        return None
    held = any(p.suffix in WEIGHTS or p.name.endswith(".index.json") for p in folder.iterdir())
    return None if held else folder
