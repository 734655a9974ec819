"""Live beside a torchvision, torchaudio or torchcodec that was built for another torch.

Image and video processors of transformers need torchvision's pure Python transforms only, but with a CPU build of
torch and the ordinary torchvision wheel the import itself dies ("operator torchvision::nms does not exist").
Declaring the schemas of the missing operators is enough to import; calling them still fails, as it should. Transformers
imports torchaudio and torchcodec where they are merely installed; neither is needed for pictures and text.
"""

import importlib
import importlib.util
import sys

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []
OPTIONAL = ("torchaudio", "torchcodec")


def make_torchvision_importable() -> bool:
    """Declare torchvision's operator schemas if, and only if, the real operators cannot load.

    Returns:
        True if the schemas had to be declared, False if torchvision is absent or needs no help.
    """
    if _declared:
        return True
    if importlib.util.find_spec("torchvision") is None or _real_operators_load():
        return False
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + _SCHEMA)
    _declared.append(library)  # the declaration lives as long as this object
    return True


def hide_broken() -> list[str]:
    """Let torchaudio and torchcodec count as not installed if they cannot be imported.

    Returns:
        Those that are hidden.
    """
    hidden = []
    for name in OPTIONAL:
        if name in sys.modules or importlib.util.find_spec(name) is None:
            continue
        try:
            importlib.import_module(name)
        except (OSError, RuntimeError, ImportError, AttributeError):
            for part in [m for m in sys.modules if m.startswith(name + ".")]:
                del sys.modules[part]
            sys.modules[name] = None  # type: ignore[assignment]
            hidden.append(name)
            _forget_answer(name)
    return hidden


def _forget_answer(name: str) -> None:
    """Let transformers ask again whether a package is there, if it has asked before."""
    asked = sys.modules.get("transformers.utils.import_utils")
    clear = getattr(getattr(asked, f"is_{name}_available", None), "cache_clear", None)
    if clear is not None:
        clear()


def _real_operators_load() -> bool:
    if hasattr(torch.ops.torchvision, "nms"):
        return True
    try:
        import torchvision  # noqa: F401
    except (RuntimeError, OSError):
        return False
    return True
