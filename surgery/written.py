"""What the files of modes and families say of themselves, read without running them: nothing here needs torch.

Each of these files ends in `register_mode(Mode(name=..., ...))` or `register_family(Family(...))`. What is written there as
plain values is what `lostattn modes` and `lostattn families` list; what is left to the default is read from the class.
"""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..patches.discover import FOLDER, names_of


def written(kind: str) -> list[SimpleNamespace]:
    """Every `mode` or `family` by name, with those of its values that are no code.

    Raises:
        RuntimeError: a file without its entry, or an entry under another name than the file's.
    """
    defaults = _defaults(kind)
    return [SimpleNamespace(**_plain(defaults | _entry(kind, name))) for name in names_of(kind)]


def constant(file: str, name: str) -> Any:
    """A plain value at the top of a file of this package, such as `patches/call.py`."""
    for node in _parsed(FOLDER.parent / file).body:
        if isinstance(node, ast.Assign) and name in (t.id for t in node.targets if isinstance(t, ast.Name)):
            return ast.literal_eval(node.value)
    raise RuntimeError(f"{file} holds no {name}")


def _entry(kind: str, name: str) -> dict[str, ast.expr]:
    """What the file writes down, as code."""
    for node in ast.walk(_tree(f"{kind}_{name}")):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == kind.capitalize():
            fields = {k.arg: k.value for k in node.keywords if k.arg}
            if _plain(fields).get("name") == name:
                return fields
    raise RuntimeError(f"{kind}_{name}.py registers no {kind} of the name '{name}'")


def _defaults(kind: str) -> dict[str, ast.expr]:
    """Defaults of the class, as code."""
    for node in _tree(kind).body:
        if isinstance(node, ast.ClassDef) and node.name == kind.capitalize():
            fields = ((f.target, f.value) for f in node.body if isinstance(f, ast.AnnAssign))
            return {t.id: value for t, value in fields if isinstance(t, ast.Name) and value is not None}
    raise RuntimeError(f"{kind}.py holds no class {kind.capitalize()}")


def _plain(values: dict[str, ast.expr]) -> dict[str, Any]:
    """Those that are no code; a field that makes an empty dict has that."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if ast.unparse(value) == "field(default_factory=dict)":
            plain[name] = {}
            continue
        try:
            plain[name] = ast.literal_eval(value)
        except ValueError:  # code, such as the name of a function
            continue
    return plain


def _tree(module: str) -> ast.Module:
    return _parsed(FOLDER / f"{module}.py")


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
