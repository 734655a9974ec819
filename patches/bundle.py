"""`modeling_sap.py`: the code of a patched checkpoint in one file, put together from the modules that its plan needs.

    python -m lostattn.patches.bundle FAMILY MODE

prints it. The file is deterministic, and computes bit for bit what the modules compute: their statements stand in it as they
are, in order of dependency; only imports are collected at the top, and a module's docstring becomes a comment.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .discover import names_of, suggestion
from .errors import LostattnError

ENTRY = "modeling_sap.py"
# First in the file: versions are checked before transformers is asked for classes that an older one lacks.
FIRST, CHECK = "compat", "check_versions()"
LAST = ("conversions", "inherit_key_renames(FAMILY)")
WIDTH = 120
_HERE = Path(__file__).parent


def bundle(family: str, mode: str) -> str:
    """Text of `modeling_sap.py` for one family and one mode.

    Args:
        family: name of a family, as `qwen2_5_vl`.
        mode: name of a mode, as `patch_complexity`.

    Raises:
        LostattnError: no such family or mode.
        RuntimeError: two modules define one name, or import something in a way that cannot be put into one file.
    """
    for kind, name in (("family", family), ("mode", mode)):
        if not (_HERE / f"{kind}_{name}.py").is_file():
            near = suggestion(name, names_of(kind))
            raise LostattnError(f"there is no {kind} '{name}'{near}: see 'lostattn families' and 'lostattn modes'")
    first = _ordered([FIRST], {})
    modules = _ordered([FIRST, f"family_{family}", f"mode_{mode}", LAST[0]], {})
    rest = {name: module for name, module in modules.items() if name not in first}
    _check_names(modules.values())
    early = {item for module in first.values() for item in module.outside}
    late = {item for module in rest.values() for item in module.outside} - early
    head = [_header(family, mode), "from __future__ import annotations", _imports(early)]
    first_part = "\n\n".join(module.section() for module in first.values())
    rest_part = "\n\n".join(module.section() for module in rest.values())
    return "\n".join([*head, "", first_part, "", CHECK, "", _imports(late), "", rest_part, "", LAST[1], ""])


class _Module:
    """One module of this folder: its text, what it defines, and what it imports from siblings and from elsewhere."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (_HERE / f"{name}.py").read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self.siblings: list[str] = []
        self.outside: list[tuple[str, str, str]] = []  # (module or "", name, name here)
        for node in ast.walk(self.tree):
            self._note(node)
        for node in self.tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.outside += self._outside(node)

    def _note(self, node: ast.AST) -> None:
        if not isinstance(node, ast.ImportFrom) or not node.level:
            if isinstance(node, ast.Import | ast.ImportFrom) and node not in self.tree.body:
                raise RuntimeError(f"{self.name}, line {node.lineno}: imports stand at the top of a travelling file")
            return
        plain = node.level == 1 and node.module and "." not in node.module and node in self.tree.body
        if not plain or any(alias.asname for alias in node.names):
            raise RuntimeError(
                f"{self.name}, line {node.lineno}: a travelling file may only use 'from .x import y' at its top"
            )
        self.siblings.append(str(node.module))

    @staticmethod
    def _outside(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str, str]]:
        if isinstance(node, ast.ImportFrom) and (node.level or node.module == "__future__"):
            return
        module = str(node.module) if isinstance(node, ast.ImportFrom) else ""
        yield from ((module, alias.name, alias.asname or alias.name) for alias in node.names)

    def names(self) -> Iterator[str]:
        """What it defines at its top level."""
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from (n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))

    def section(self) -> str:
        """Its statements and comments as they stand, without docstring and imports, under a heading."""
        lines = self.text.splitlines()
        dropped: set[int] = set()
        for i, node in enumerate(self.tree.body):
            doc = i == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if doc or isinstance(node, ast.Import | ast.ImportFrom):
                dropped |= set(range(node.lineno - 1, node.end_lineno or node.lineno))
        body = "\n".join(line for i, line in enumerate(lines) if i not in dropped).strip("\n")
        title = f"# ---- {self.name} "
        comment = "\n".join(f"# {line}".rstrip() for line in (ast.get_docstring(self.tree) or "").splitlines())
        return f"{title.ljust(WIDTH, '-')}\n{comment}\n\n\n{body}\n" if body else ""


def _ordered(names: Iterable[str], found: dict[str, _Module]) -> dict[str, _Module]:
    """The modules and all siblings that they import, each behind those that it imports."""
    for name in names:
        if name not in found:
            module = _Module(name)
            _ordered(module.siblings, found)
            found[name] = module
    return found


def _check_names(modules: Iterable[_Module]) -> None:
    """RuntimeError if one name means two things in the one file."""
    meaning: dict[str, tuple[str, ...]] = {}
    for module in modules:
        own = [(name, ("", module.name)) for name in dict.fromkeys(module.names())]
        for name, what in (*own, *((as_, (source, name)) for source, name, as_ in module.outside)):
            if meaning.setdefault(name, what) != what:
                raise RuntimeError(f"'{name}' means {meaning[name]} and {what}: rename one of them")


def _imports(wanted: set[tuple[str, str, str]]) -> str:
    """Import statements, merged and sorted: the standard library, then torch and transformers."""
    blocks = []
    for standard in (True, False):
        part = {item for item in wanted if ((item[0] or item[1]).split(".")[0] in sys.stdlib_module_names) == standard}
        plain = sorted(
            f"import {name}" + ("" if name == as_ else f" as {as_}") for source, name, as_ in part if not source
        )
        blocks.append(
            "\n".join([*plain, *(_from(source, part) for source in sorted({item[0] for item in part if item[0]}))])
        )
    return "\n" + "\n\n".join(block for block in blocks if block) + "\n"


def _from(source: str, items: set[tuple[str, str, str]]) -> str:
    names = sorted(n if n == as_ else f"{n} as {as_}" for module, n, as_ in items if module == source)
    line = f"from {source} import {', '.join(names)}"
    return line if len(line) <= WIDTH else "\n".join([f"from {source} import (", *(f"    {n}," for n in names), ")"])


def _header(family: str, mode: str) -> str:
    try:
        made_by = version("lostattn")
    except PackageNotFoundError:
        made_by = "0+unknown"
    return (
        f'"""Model code of a checkpoint patched by lostattn {made_by}: family {family}, mode {mode}.\n\n'
        f"Made by `python -m lostattn.patches.bundle {family} {mode}`, as every `lostattn patch` does; `lostattn verify` says\n"
        'whether it was changed.\n"""\n\n# SPDX-License-Identifier: Apache-2.0\n# ruff: noqa: E402'
    )


if __name__ == "__main__":
    try:
        sys.stdout.write(bundle(*sys.argv[1:3]))
    except (LostattnError, TypeError) as error:
        sys.exit(f"{error}; usage: python -m lostattn.patches.bundle FAMILY MODE")
