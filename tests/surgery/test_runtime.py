"""The Python files that travel, and the three doors to a patched checkpoint."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from doors import HIDE, ROOT, WITH_LOSTATTN, answer, run
from lostattn.patches import bundle as bundling
from lostattn.patches import use_prior
from lostattn.patches.family import FAMILIES, get_family
from lostattn.patches.mode import MODES
from lostattn.patches.plan import Pixels, Plan
from lostattn.serving.versions import lostattn_version
from lostattn.surgery.checkpoint import runtime
from lostattn.surgery.checkpoint.runtime import ENTRY, travelling_files
from lostattn.surgery.checkpoint.source import resolve_source
from lostattn.surgery.checkpoint.write import write_patched
from transformers.cache_utils import Cache


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_one_file_holds_what_a_family_and_a_mode_need(family: str, mode: str) -> None:
    files = travelling_files(family, mode)
    assert list(files) == [ENTRY] and files == travelling_files(family, mode)
    text = files[ENTRY].decode()
    tree = ast.parse(text)
    assert all(node.level == 0 for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), "no siblings"
    defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assert len(defined) == len(set(defined))
    found = get_family(family)
    assert {found.config_class.__name__, found.model_class.__name__} <= set(defined)
    assert f"# ---- family_{family} -" in text and f"# ---- mode_{mode} -" in text
    others = [f"# ---- {kind}_{name} -" for kind, known in (("family", FAMILIES), ("mode", MODES)) for name in known]
    assert sum(text.count(other) for other in others) == 2, "other families and modes stay at home"
    assert f"lostattn {lostattn_version()}: family {family}, mode {mode}" in text and "Apache-2.0" in text
    assert f"python -m lostattn.patches.bundle {family} {mode}" in text


def test_transformers_finds_no_other_file_and_no_other_package(tmp_path: Path) -> None:
    from transformers.dynamic_module_utils import get_imports, get_relative_import_files

    for family in FAMILIES:
        (tmp_path / ENTRY).write_bytes(travelling_files(family, "region")[ENTRY])
        assert get_relative_import_files(tmp_path / ENTRY) == []
        assert set(get_imports(tmp_path / ENTRY)) - set(sys.stdlib_module_names) <= {"torch", "transformers"}


def test_the_command_in_the_file_makes_the_file(tmp_path: Path) -> None:
    shown = re.search(r"`python (-m lostattn\S+ \S+ \S+)`", travelling_files("llava", "noise")[ENTRY].decode())
    assert shown is not None
    (tmp_path / "lostattn").symlink_to(Path(runtime.__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    made = subprocess.run(
        [sys.executable, *shown[1].split()], capture_output=True, env=environment, cwd=tmp_path, check=True
    )
    assert made.stdout == travelling_files("llava", "noise")[ENTRY]
    wrong = subprocess.run(
        [sys.executable, *shown[1].split()[:-1], "nosuch"], capture_output=True, env=environment, cwd=tmp_path
    )
    assert wrong.returncode == 1 and b"there is no mode 'nosuch'" in wrong.stderr


@pytest.mark.parametrize(
    ("one", "other", "problem"),
    [
        ("from . import plan", "", "may only use 'from .x import y'"),
        ("from .a.b import c", "", "may only use 'from .x import y'"),
        ("from ..x import y", "", "may only use 'from .x import y'"),
        ("from .two import y as z", "y = 1", "may only use 'from .x import y'"),
        ("def f():\n    from .two import y", "y = 1", "at its top"),
        ("def f():\n    import json", "", "stand at the top"),
        ("from .two import y\nx = 1", "x = 2\ny = 1", "'x' means"),
        ("from .two import y\nimport math as m", "import json as m\ny = 1", "'m' means"),
        ("from .two import y\nfrom math import pi", "pi = 3\ny = 1", "'pi' means"),
    ],
)
def test_modules_that_do_not_fit_into_one_file(
    one: str, other: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (
        ("family_x", f"{one}\n"),
        ("two", f"{other}\n"),
        ("mode_x", ""),
        ("compat", ""),
        ("conversions", ""),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(bundling, "_HERE", tmp_path)
    with pytest.raises(RuntimeError, match=problem):
        bundling.bundle("x", "x")


@pytest.mark.parametrize("family", ["gemma3", "internvl", "qwen2_5_vl"])
def test_the_one_file_computes_what_the_modules_do(family: str, tmp_path: Path) -> None:
    """Two copies of the code and the installed one in one process: equal to the bit, and none disturbs another."""
    name, plan = family, tiny.make_plan(family, "noise")
    plain = tiny.make_plain(name)
    ours = tiny.make_patched(plain, plan)
    copies = [load_copy(tmp_path / f"copy{i}.py", family, tag) for i, tag in enumerate(("", "0.0.7"))]
    theirs = []
    for module in copies:
        model = module.FAMILY.model_class(module.FAMILY.config_class(**values(plain), sap=plan.to_json())).eval()
        model.load_state_dict(plain.state_dict())
        model.generation_config = plain.generation_config
        theirs.append(model)
    inputs = tiny.make_inputs(name, 2)
    wanted = ours.generate(
        **inputs, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    for model in (*theirs, ours, *reversed(theirs)):
        assert model.sap_settings is not ours.sap_settings or model is ours
        found = model.generate(
            **inputs, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        assert torch.equal(torch.stack(found.logits), torch.stack(wanted.logits))
    first, second = theirs
    with torch.no_grad():
        before = first(**inputs).logits
        cache = next(v for v in first(**inputs, use_cache=True).values() if isinstance(v, Cache))
        for other in (second, ours):
            with pytest.raises(ValueError, match="another copy of lostattn"):
                other(input_ids=torch.tensor([[9]]), past_key_values=cache)
        priors = [
            torch.linspace(0, 1, tiny.image_tokens(name) // per)
            for per in [lengths(ours, inputs)]
            for _ in range(2 * per)
        ]
        with use_prior(first, priors):  # the installed use_prior reaches the copy, and the copy alone
            moved = first(**inputs).logits
        with use_prior(ours, priors):
            assert torch.equal(ours(**inputs).logits, moved)
            assert torch.equal(first(**inputs).logits, before) and not torch.equal(before, moved)


def lengths(model: Any, inputs: dict[str, Any]) -> int:
    """Priors per picture."""
    kept = {k: v for k, v in inputs.items() if k in inspect.signature(model.model.get_image_features).parameters}
    return len(model.model.get_image_features(**kept)["sap_prior"]) // 2


def values(plain: Any) -> dict[str, Any]:
    return {k: v for k, v in plain.config.to_dict().items() if k != "model_type"}


def load_copy(path: Path, family: str, version: str) -> Any:
    text = travelling_files(family, "noise")[ENTRY].decode()
    path.write_text(text.replace(lostattn_version(), version, 1) if version else text)
    spec = importlib.util.spec_from_file_location(f"copied_{path.stem}_{family}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def patched(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = Plan(
        "llava",
        "noise",
        "paper",
        "log",
        "all",
        3,
        4,
        2,
        heads={1: (0, 1), 2: (3,)},
        options=MODES["noise"].settle("paper"),
        pixels=Pixels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    )
    out = tmp_path_factory.mktemp("runtime") / "tiny-sap.v1"
    return write_patched(resolve_source(tiny_llava), plan, out, card="# card\n").path


def test_two_doors_one_answer(patched: Path, tmp_path: Path) -> None:
    name, module, remote = answer(run(patched, tmp_path, lostattn=False, arguments="trust_remote_code=True"))
    assert name == "SapLlavaForConditionalGeneration" and module.startswith("transformers_modules.")
    name, module, local = answer(run(patched, tmp_path, lostattn=True))
    assert name == "SapLlavaForConditionalGeneration" and module == "lostattn.patches.family_llava"
    assert remote == local  # bit for bit


def test_the_closed_door_is_loud(patched: Path, tmp_path: Path) -> None:
    process = run(patched, tmp_path, lostattn=False)
    assert process.returncode != 0 and "trust_remote_code=True" in process.stderr


TWO = """
import importlib.abc, importlib.util, sys
{hidden}
import torch
torch.set_num_threads(1)
{before}
from transformers import AutoModelForImageTextToText
def load(folder):
    return AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True).eval()
one, two = load({one!r}), load({two!r})
ids = torch.tensor([[1, 60, 60, 60, 60, 2, 3]])
pixels = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
def answers(model):
    how = dict(max_new_tokens=3, do_sample=False, output_logits=True, return_dict_in_generate=True)
    return torch.stack(model.generate(input_ids=ids, pixel_values=pixels, **how).logits).tolist()
first = [answers(one), answers(two)]
assert [answers(one), answers(two)] == first and [answers(two), answers(one)] == first[::-1]
out = one(input_ids=ids, pixel_values=pixels, use_cache=True)
try:
    two(input_ids=ids[:, :1], past_key_values=out.past_key_values)
except ValueError as error:
    assert "begin with an empty cache" in str(error), error
else:
    raise AssertionError("a cache went from one model to another")
alone = load({one!r})
assert answers(alone) == first[0] != first[1]
print(type(one).__module__, type(two).__module__)
"""


@pytest.mark.parametrize("lostattn", [False, True])
def test_two_checkpoints_of_different_versions_in_one_process(tiny_llava: Path, tmp_path: Path, lostattn: bool) -> None:
    folders = []
    for version, heads in (("0.0.7", {1: (0, 1), 2: (3,)}), ("0.9.0", {0: (0, 1, 2, 3), 2: (0, 1, 2, 3)})):
        plan = Plan("llava", "uniform", "paper", "raw", "all", 3, 4, 2, heads=heads)
        out = write_patched(resolve_source(tiny_llava), plan, tmp_path / f"v{version}", card="# card\n").path
        code = out / ENTRY
        code.write_text(code.read_text().replace(f"lostattn {lostattn_version()}", f"lostattn {version}", 1))
        folders.append(str(out))
    before = WITH_LOSTATTN.format(root=str(ROOT)) if lostattn else ""
    packages = ("torchvision", "torchaudio") if lostattn else ("torchvision", "torchaudio", "lostattn")
    code = TWO.format(hidden=HIDE.format(hidden=packages), before=before, one=folders[0], two=folders[1])
    environment = {
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path),
        "PATH": "/bin",
    }
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert made.returncode == 0, made.stderr[-2000:]
    modules = made.stdout.split()
    assert len(set(modules)) == 1 if lostattn else len(set(modules)) == 2, modules
