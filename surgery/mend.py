"""Mend an environment whose torchvision or torchaudio was built for another torch: once, for every process of it.

`patches/torchvision_ops.py` is copied into the environment, with a `.pth` file that runs it when Python starts. Nothing of
lostattn is needed afterwards; pip does not know the two files and leaves them where they are.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..patches.errors import LostattnError
from ..serving.disk import disk_errors, write_bytes
from ..serving.server import STARTUP
from ..serving.versions import package_version

SOURCE = Path(__file__).resolve().parents[1] / "patches" / "torchvision_ops.py"
MODULE = "_lostattn_imports"
# a line that starts with "import" is run at every start of Python: whatever goes wrong in it must not be seen
START = f"""import sys; exec("try:\\n import {MODULE}; {MODULE}.make_torchvision_importable()\\nexcept Exception:\\n pass")\n"""
PACKAGES = ("torchvision", "torchaudio")
MEND = "lostattn doctor --mend"
_TRY = f"""
import importlib, importlib.util, json
found = {{}}
for name in {PACKAGES}:
    if importlib.util.find_spec(name) is None:
        continue
    try:
        importlib.import_module(name)
        found[name] = ""
    except BaseException as error:
        found[name] = (str(error).strip().splitlines() or [type(error).__name__])[0]
print(json.dumps(found))
"""


def tried_imports() -> dict[str, str]:
    """What a process that knows nothing of lostattn says when it imports the packages that are installed beside torch.

    Returns:
        package -> its error, empty if the import works; packages that are not installed are left out.
    """
    paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and Path(p).resolve() != STARTUP]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-P", "-c", _TRY], env=env, capture_output=True, text=True)
    if done.returncode:  # a library that ends the process
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {name: lines[-1] for name in PACKAGES if package_version(name)}
    result: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def mend(folder: Path | None = None) -> str:
    """Make torchvision and torchaudio importable for every process of this environment, if they are not.

    Args:
        folder: a folder whose `.pth` files Python runs; None looks for this environment's.

    Returns:
        a sentence about what was done.

    Raises:
        LostattnError: no such folder can be written, or a package cannot be imported even so; nothing is left then.
    """
    before = tried_imports()
    old = [path for place in _folders(folder) for path in _files(place) if path.exists()]
    broken = _broken(before)
    if not broken and not old:
        return (
            f"nothing to mend: {_and(before)} can be imported by any process"
            if before
            else ("nothing to mend: neither torchvision nor torchaudio is installed")
        )
    place = old[0].parent if old else _writable(_folders(folder))
    _write(place)
    still = _broken(tried_imports())
    if still:
        if not old:
            unmend(folder)
        name, error = next(iter(still.items()))
        raise LostattnError(
            f"{name} cannot be imported ({error}), and not for want of its compiled operators alone: install the {name} that "
            f"matches torch {package_version('torch')}"
        )
    return f"mended: {_and(broken or before)} can now be imported by any process ({place / MODULE}.pth)"


def unmend(folder: Path | None = None) -> str:
    """Take the mend out of this environment again. Returns a sentence; LostattnError if a file cannot be removed."""
    gone = [path for place in _folders(folder) for path in _files(place) if path.exists()]
    for path in gone:
        with disk_errors(f"cannot remove {path}"):
            path.unlink(missing_ok=True)
    return f"removed {_and([str(path) for path in gone])}" if gone else "nothing to remove: no mend in this environment"


def needs_mend() -> str:
    """Sentence on what keeps other programs from importing torchvision or torchaudio here; empty if nothing does."""
    broken = _broken(tried_imports())
    if not broken:
        return ""
    return (
        f"{_and(broken)} cannot be imported before lostattn is ({'; '.join(broken.values())}), so vLLM in your own process and "
        f"transformers' pipelines fail: run {MEND}"
    )


def _broken(tried: dict[str, str]) -> dict[str, str]:
    return {name: error for name, error in tried.items() if error}


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / f"{MODULE}.pth", folder / f"{MODULE}.py"


def _folders(folder: Path | None) -> list[Path]:
    """Folders whose `.pth` files Python runs: of the environment, then of the user alone."""
    if folder is not None:
        return [folder]
    places = [sysconfig.get_path("purelib"), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    return [Path(place) for place in places]


def _writable(folders: list[Path]) -> Path:
    for folder in folders:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise LostattnError(
        f"{_and([str(folder) for folder in folders])} cannot be written: run {MEND} with the rights that pip needs there, or "
        "install lostattn into a virtual environment of your own"
    )


def _write(folder: Path) -> None:
    """The module first: a start that finds the `.pth` file without it does nothing."""
    start, module = _files(folder)
    for path, data in ((module, SOURCE.read_bytes()), (start, START.encode())):
        with disk_errors(f"cannot write {path}"):
            temporary = path.with_name(f"{path.name}.{os.getpid()}")
            try:
                write_bytes(temporary, data)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)


def _and(names: Iterator[str] | list[str] | dict[str, str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
