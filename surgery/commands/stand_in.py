"""What lets the command line answer before torch is loaded: a stand-in for the package `patches`.

That package loads torch, transformers and every model class as soon as one of its modules is imported, so that a patched
checkpoint can be loaded from then on. A command that lists modes or refuses a mistyped option needs its errors and constants
alone. In the process of the command, and nowhere else, the stand-in gives those; the package runs whole right behind the
first module that needs torch, before anybody could miss it.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

PACKAGE = f"{__package__.split('.')[0]}.patches"
# Modules of `patches` that do without torch, themselves and in what they import.
LIGHT = frozenset({"bundle", "discover", "errors", "plan", "plan_fields", "side_files", "torchvision_ops"})
HEAVY = ("torch", "transformers")


def stand_in() -> None:
    """Put the stand-in where `patches` will be looked for; does nothing where the package, or torch, is there already."""
    if any(name in sys.modules for name in (PACKAGE, *HEAVY)):
        return
    spec = find_spec(PACKAGE)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    module.__class__ = _Unread
    sys.modules[PACKAGE] = module
    setattr(sys.modules[PACKAGE.split(".")[0]], PACKAGE.split(".")[1], module)
    sys.meta_path.insert(0, _Watch())


def run_whole() -> None:
    """Run the package behind the stand-in, as an import would have done."""
    module = sys.modules.get(PACKAGE)
    if not isinstance(module, _Unread):
        return
    module.__class__ = ModuleType  # type: ignore[assignment]
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Watch)]
    loader = module.__spec__.loader if module.__spec__ is not None else None
    assert loader is not None
    loader.exec_module(module)


class _Unread(ModuleType):
    """A package whose own file has not run: its light modules can be imported, all else runs it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in LIGHT:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        run_whole()
        return getattr(self, name)


class _Watch:
    """A finder in front that finds what the others find; whatever needs torch is followed by the whole package."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of the other finders, with another loader, for torch, transformers and what of `patches` needs them."""
        package, _, tail = name.rpartition(".")
        if name not in HEAVY and (package != PACKAGE or tail in LIGHT):
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                if spec.loader is not None:
                    spec.loader = _Followed(spec.loader)
                return spec
        return None


class _Followed(Loader):
    """Runs a module, then the whole package."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the loader itself does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Put the loader back where it was looked for, run the module, and let the package follow the outermost one."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        outermost = any(isinstance(finder, _Watch) for finder in sys.meta_path)
        if outermost:
            sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Watch)]
            importlib.import_module(f"{PACKAGE}.torchvision_ops").make_torchvision_importable()
        self._loader.exec_module(module)
        if outermost:
            run_whole()
