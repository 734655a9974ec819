"""The mend of an environment: every process of it can import torchvision and torchaudio, and nothing else changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from click.testing import CliRunner
from lostattn.patches.errors import LostattnError
from lostattn.surgery import mend as module
from lostattn.surgery.cli import main
from lostattn.surgery.mend import MODULE, mend, needs_mend, tried_imports, unmend

# what PyPI's wheels do beside a torch that they were not built for; the torch is as much of one as they ask here, for speed
# (tests/serving/test_startup.py has the real one, and so has the last test of this file)
PACKAGES = {
    "torch/__init__.py": """
class ops:
    class torchvision: pass
class library:
    def register_fake(name):
        if not hasattr(ops.torchvision, name.split("::")[1]):
            raise RuntimeError(f"operator {name} does not exist")
        return lambda function: function
    class Library:
        def __init__(self, namespace, kind): pass
        def define(self, schema): setattr(ops.torchvision, schema.split("(")[0], schema)
""",
    "torchvision/__init__.py": (
        "import torch\nfrom . import ops\n"
        "torch.library.register_fake('torchvision::nms')(lambda dets, scores, iou_threshold: None)\n"
    ),
    "torchvision/ops.py": "",
    "torchaudio/__init__.py": "from . import _extension\n",
    "torchaudio/_extension/__init__.py": (
        "from .utils import _load_lib\nAVAILABLE = _load_lib('_torchaudio')\n"
        "if AVAILABLE:\n    raise RuntimeError('the library is not there')\n"
    ),
    "torchaudio/_extension/utils.py": "def _load_lib(name):\n    raise OSError('Could not load this library: ' + name)\n",
    "torchcodec/__init__.py": "from . import core\n",
    "torchcodec/core.py": "raise OSError('Could not load this library: core')\n",
}


def fill(folder: Path, packages: dict[str, str]) -> None:
    for name, text in packages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """site-packages of an environment with broken packages; mend and unmend are for it."""
    home = tmp_path / "env"
    venv.create(home, with_pip=False, symlinks=True)
    place = Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))
    assert place.is_dir()
    fill(place, PACKAGES)
    monkeypatch.setattr(sys, "executable", str(home / "bin" / "python"))
    return place


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)


def test_it_mends_every_process_and_can_be_taken_back(environment: Path) -> None:
    assert set(module._broken(tried_imports())) == {"torchvision", "torchaudio"}
    assert "run lostattn doctor --mend" in needs_mend()
    before = sorted(environment.iterdir())
    assert mend(environment).startswith("mended: torchvision and torchaudio")
    assert not needs_mend()
    code = "import torchvision, torchaudio, torch; print(torchaudio._extension.AVAILABLE)"
    for options in ((), ("-I",), ("-P", "-E")):
        assert run(code, *options).stdout == "False\n"
    assert "ImportError: torchcodec does not fit" in run("import torchcodec").stderr
    assert mend(environment).startswith("mended: torchvision and torchaudio"), "again, as by the next installation"
    assert unmend(environment).startswith("removed ")
    assert [path for path in sorted(environment.iterdir()) if path.name != "__pycache__"] == before
    assert "nothing to remove" in unmend(environment) and needs_mend()


def test_nothing_is_imported_when_python_starts(environment: Path) -> None:
    loaded = "import sys; print(*sorted(set(sys.modules)))"
    bare = set(run(loaded).stdout.split())
    mend(environment)
    more = set(run(loaded).stdout.split()) - bare
    assert MODULE in more and not more & {"torch", "torchvision", "json", "re", "importlib.metadata"}, more


@pytest.mark.parametrize("text", ["raise SystemError('damaged')", "(", None, "make_torchvision_importable = 1"])
def test_a_damaged_mend_never_breaks_python(environment: Path, text: str | None) -> None:
    mend(environment)
    file = environment / f"{MODULE}.py"
    file.unlink() if text is None else file.write_text(text)
    found = run("print('fine')")
    assert found.stdout == "fine\n" and not found.stderr


def test_it_outlives_an_installation_and_steps_aside_for_packages_that_match(environment: Path) -> None:
    mend(environment)
    fill(environment, {"torchvision/__init__.py": "value = 7\n", "torchaudio/__init__.py": "value = 8\n"})
    code = "import torchvision, torchaudio, sys; print(torchvision.value, torchaudio.value, 'torch' in sys.modules)"
    assert run(code).stdout == "7 8 False\n"
    fill(environment, PACKAGES)
    assert not needs_mend(), "the next build that does not match"


def test_where_all_matches_nothing_is_written(environment: Path) -> None:
    fill(environment, {"torchvision/__init__.py": "", "torchaudio/__init__.py": ""})
    before = sorted(environment.iterdir())
    assert mend(environment) == "nothing to mend: torchvision and torchaudio can be imported by any process"
    assert sorted(environment.iterdir()) == before


def test_what_cannot_be_mended_is_one_sentence_and_leaves_nothing(environment: Path) -> None:
    fill(environment, {"torchvision/__init__.py": "raise RuntimeError('built for Windows')"})
    before = sorted(environment.iterdir())
    with pytest.raises(
        LostattnError, match="torchvision cannot be imported .built for Windows.*install the torchvision"
    ):
        mend(environment)
    assert [path for path in sorted(environment.iterdir()) if path.name != "__pycache__"] == before


def test_a_package_that_ends_the_process_is_told(environment: Path) -> None:
    fill(environment, {"torchvision/__init__.py": "import os; os._exit(3)"})
    assert "exit code 3" in needs_mend()


def test_no_place_to_write_is_one_sentence(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    with pytest.raises(LostattnError, match="virtual environment of your own"):
        mend(environment)


def test_the_command(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_folders", lambda folder: [environment])
    done = CliRunner().invoke(main, ["doctor", "--mend"])
    assert done.exit_code == 0 and done.stdout.startswith("mended: ")
    assert (environment / f"{MODULE}.pth").is_file()
    done = CliRunner().invoke(main, ["doctor", "--unmend", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["done"].startswith("removed ")
    fill(environment, {"torchaudio/__init__.py": "raise RuntimeError('no')"})
    done = CliRunner().invoke(main, ["doctor", "--mend"])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and "torchaudio" in done.stderr


def test_this_environment_needs_nothing() -> None:
    """What `make` made: transformers' pipelines and torchaudio, without lostattn, from anywhere."""
    assert needs_mend() == ""
    code = "from transformers import pipeline; import transformers.audio_utils, sys; print('lostattn' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=os.path.expanduser("/"))
    assert found.stdout == "False\n", found.stderr
