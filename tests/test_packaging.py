"""The house: packaging, cold imports, floors, sizes. Reads the code, runs little of it."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FLOORS = {"patches": {"patches"}, "serving": {"serving", "patches"}, "surgery": {"surgery", "serving", "patches"}}
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
PATCHES = [path for path in SOURCES if path.parent == ROOT / "patches"]
# the one file that is about torchvision, and asks whether it can be imported
PROBES = {"torchvision_ops.py": {"torchvision"}}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(level, module) of all imports, at the top or inside functions; `from . import x` has the module x."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.level, node.module
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, alias.name) for alias in node.names)


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, str]:
    """An environment in which `lostattn` is this checkout, installed or not."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "lostattn").symlink_to(ROOT)
    return {**os.environ, "PYTHONPATH": str(tmp_path / "path")}


def python(code: str, env: dict[str, str]) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=env["PYTHONPATH"])
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_version_stands_in_one_place() -> None:
    version = PROJECT["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    for path in [ROOT / "__init__.py", *SOURCES]:
        text = path.read_text(encoding="utf-8")
        assert "__version__ =" not in text and f'"{version}"' not in text, name(path)
    from lostattn.surgery.checkpoint.provenance import lostattn_version

    assert lostattn_version() in (version, "0+unknown")


def test_packages_are_the_folders() -> None:
    folders = {"lostattn"} | {
        f"lostattn.{'.'.join(path.parent.relative_to(ROOT).parts)}" for path in SOURCES if path.name == "__init__.py"
    }
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(folders)
    for path in SOURCES:
        assert (path.parent / "__init__.py").is_file(), f"{name(path)} lies in no package"


def test_the_public_names_are_imported_when_they_are_used() -> None:
    """`import lostattn` waits for nothing, and every name is there."""
    import lostattn

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    loaded = python("import sys, lostattn; print([m for m in ('torch', 'transformers') if m in sys.modules])", env)
    assert loaded.strip() == "[]"
    for public in lostattn.__all__:
        assert getattr(lostattn, public).__doc__, public
    with pytest.raises(AttributeError, match="no attribute 'pacth'"):
        _ = lostattn.pacth


def test_entry_points_resolve() -> None:
    groups = [PROJECT["project"]["scripts"], *PROJECT["project"].get("entry-points", {}).values()]
    assert groups[0]["lostattn"] == "lostattn.surgery.cli:main"
    for entry in (value for group in groups for value in group.values()):
        module, attribute = entry.split(":")
        assert callable(getattr(importlib.import_module(module), attribute))


def test_commands_resolve() -> None:
    from lostattn.surgery.cli import COMMANDS

    for target in COMMANDS.values():
        module, attribute = target.split(":")
        assert callable(getattr(importlib.import_module(f"lostattn.surgery.{module}"), attribute))


@pytest.mark.parametrize(
    "command", [["--help"], ["patch", "--help"], ["calibrate", "--help"], ["--version"]], ids=" ".join
)
def test_cold_imports(command: list[str], alone: dict[str, str]) -> None:
    code = f"""
import sys, lostattn.surgery, lostattn.surgery.cli
try:
    lostattn.surgery.cli.main({command!r})
except SystemExit as end:
    assert end.code == 0
print("HEAVY", sorted({{"torch", "transformers", "numpy", "PIL", "yaml"}} & set(sys.modules)))
"""
    assert python(code, alone).endswith("HEAVY []\n")


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_run_downward(path: Path) -> None:
    package = path.parent.relative_to(ROOT).parts
    for level, module in imports(path):
        if level == 0:
            top = module.split(".")[0]
            assert top != "lostattn" and top not in FLOORS, f"{module}: relative imports only"
            assert top != "vllm" or package[0] == "serving", "only serving knows vLLM"
            continue
        assert level <= len(package) + 1, f"{module} lies outside of lostattn"
        target = (*package[: len(package) - level + 1], *module.split("."))
        assert target[0] in FLOORS[package[0]], f"{'.'.join(target)} is above {package[0]}"


@pytest.mark.parametrize("path", PATCHES, ids=name)
def test_every_file_of_patches_can_travel(path: Path) -> None:
    known = {"torch", "transformers", *sys.stdlib_module_names, *PROBES.get(path.name, ())}
    siblings = {p.stem for p in PATCHES}
    for level, module in imports(path):
        if level == 0:
            assert module.split(".")[0] in known, f"{module}: torch, transformers and the standard library only"
        else:
            assert level == 1 and module in siblings, f"{'.' * level}{module}: siblings only"
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.ImportFrom) or node.module, "transformers finds `from .x import y` only"


def test_patches_are_flat() -> None:
    assert {p.name for p in (ROOT / "patches").iterdir() if p.is_dir()} <= {"__pycache__"}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_runs_code_of_a_checkpoint(path: Path) -> None:
    for level, module in imports(path):
        assert level or module.split(".")[0] not in {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
            assert not (isinstance(node.value, ast.Constant) and node.value.value), f"line {node.value.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("torch", "load"), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec"), f"line {node.lineno}"


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))], ids=name)
def test_house_sizes(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, f"{node.name} is too long"


def test_the_house_is_made_of_small_files() -> None:
    lines = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES)
    assert lines[len(lines) // 2] <= 110


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_public_things_are_described(path: Path) -> None:
    module = tree(path)
    assert ast.get_docstring(module), "a module says what it is for"
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def _setuptools_is_new() -> bool:
    return util.find_spec("setuptools") is not None and int(metadata.version("setuptools").split(".")[0]) >= 77


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, without network."""
    if not _setuptools_is_new():
        pytest.skip("setuptools >= 77 is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "build", "dist")
    shutil.copytree(
        ROOT, folder / "src", symlinks=True, ignore=lambda d, names: ignore(d, names) | _environments(d, names)
    )
    if util.find_spec("build") is not None:
        call = ["-m", "build", "--wheel", "--no-isolation", "-o", str(folder), str(folder / "src")]
    else:
        call = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(folder / "src")]
    run = subprocess.run([sys.executable, *call], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    (found,) = folder.glob("*.whl")
    return found


def _environments(folder: str, names: list[str]) -> set[str]:
    return {n for n in names if Path(folder, n, "pyvenv.cfg").is_file()}


def test_the_wheel_holds_what_it_needs_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if not n.endswith("/")}
    code = {f"lostattn/{name(path)}" for path in SOURCES} | {"lostattn/__init__.py", "lostattn/py.typed"}
    demo = ROOT / "surgery" / "demo"
    data = {
        f"lostattn/{name(p)}"
        for p in [demo / "calibration.json", demo / "digits.safetensors", *(demo / "model").iterdir()]
    }
    data |= {f"lostattn/{name(p)}" for p in (ROOT / "serving" / "pages" / "templates").iterdir()}
    assert {"lostattn/surgery/demo/model/model.safetensors", "lostattn/surgery/demo/model/tokenizer.json"} <= data
    assert {n for n in names if ".dist-info/" not in n} == code | data
    assert not any(re.search(r"(^|/)tests?/|\.pyc$|pyproject", n) for n in names)


def test_the_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = """
import sys
from pathlib import Path
import lostattn.surgery.cli as cli
from importlib.metadata import entry_points, version
assert Path(cli.__file__).is_relative_to(Path.cwd()), cli.__file__
(entry,) = [e for e in entry_points(group="console_scripts") if e.name == "lostattn"]
assert entry.load() is cli.main
cli.main(["--version"])
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert python(code, environment) == f"lostattn {PROJECT['project']['version']}\n"
