"""Let vLLM's processes live with a torchvision, torchaudio or torchcodec that does not match torch.

vLLM imports torchvision before it loads plugins, and lostattn may run in an environment that nobody has mended: this
runs `patches/torchvision_ops.py` at the start of every process, without importing lostattn, and then the sitecustomize
that this one hides.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

HERE = os.path.dirname(os.path.realpath(__file__))
MENDER = os.path.join(os.path.dirname(os.path.dirname(HERE)), "patches", "torchvision_ops.py")
NAME = "_lostattn_startup"


def _run(spec: ModuleSpec | None, name: str) -> ModuleType | None:
    if spec is None or spec.loader is None:
        return None
    module = ModuleType(name)
    module.__spec__, module.__file__, module.__loader__ = spec, spec.origin, spec.loader
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _mend() -> None:
    mender = _run(ModuleSpec(NAME, SourceFileLoader(NAME, MENDER), origin=MENDER), NAME)
    if mender is not None:
        mender.make_torchvision_importable()


def _run_hidden() -> None:
    """Run the sitecustomize that stands behind this one on sys.path."""
    rest = [entry for entry in sys.path if os.path.realpath(entry or ".") != HERE]
    _run(PathFinder.find_spec("sitecustomize", rest), "sitecustomize")


if NAME not in sys.modules:
    _mend()
    _run_hidden()
