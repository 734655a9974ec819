"""The Python files that travel with a patched checkpoint, so that transformers alone can load it."""

from __future__ import annotations

import ast
from pathlib import Path

from ... import patches
from ...patches.family import FAMILIES, get_family

ENTRY = "modeling_sap.py"
_PATCHES = Path(patches.__file__).parent


def travelling_names() -> set[str]:
    """File names that some patched checkpoint gets besides the entry file."""
    return {path.name for path in _PATCHES.glob("*.py") if path.name != "__init__.py"}


def class_names(family: str) -> tuple[str, str]:
    """Names of the configuration and the model class of a patched family."""
    found = get_family(family)
    return found.config_class.__name__, found.model_class.__name__


def entry_text(family: str) -> str:
    """Source of `modeling_sap.py`, which `auto_map` names and transformers reads first."""
    config, model = class_names(family)
    file = FAMILIES[get_family(family).name].config_class.__module__.rpartition(".")[2]
    modes = sorted(path.stem for path in _PATCHES.glob("mode_*.py"))
    imports = [f"from .{mode} import MODE as {mode.upper()}" for mode in modes]
    return "\n".join(
        [
            '"""Entry file of a checkpoint patched by lostattn; the files beside it are a copy of lostattn.patches."""',
            "",
            "from .compat import check_versions",
            "",
            "check_versions()",
            "",
            f"from .{file} import FAMILY, {config}, {model}",
            *imports,
            "from .register import inherit_key_renames",
            "",
            f'__all__ = ["{config}", "{model}"]',
            f"MODES = [{', '.join(mode.upper() for mode in modes)}]",
            "",
            "inherit_key_renames(FAMILY)",
            "",
        ]
    )


def travelling_files(family: str) -> dict[str, bytes]:
    """File name -> content of everything a patched checkpoint of that family has to bring, entry file included."""
    entry = entry_text(family).encode()
    files = {ENTRY: entry}
    waiting = siblings(entry)
    while waiting:
        name = waiting.pop()
        if name not in files:
            files[name] = (_PATCHES / name).read_bytes()
            waiting += siblings(files[name])
    return dict(sorted(files.items()))


def siblings(source: bytes) -> list[str]:
    """Files that a module imports from its own folder.

    transformers copies flat files named in `from .x import y` only, so any other relative import is a mistake of ours.
    """
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level > 1 or not node.module or "." in node.module:
                raise RuntimeError(f"line {node.lineno}: a travelling file may only use 'from .x import y'")
            names.append(f"{node.module}.py")
    return sorted(set(names))
