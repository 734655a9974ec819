"""The demo's folder: what comes into it, and whether it is free. Nothing here needs torch."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors
from ...serving.reading.place import RANKING_SEED
from ..spec import PatchSpec

MODEL = Path(__file__).parent / "model"
CALIBRATION = Path(__file__).parent / "calibration.json"
WHOLE_LAYERS = "patch_complexity, whole layers 5-7"
MODES = ("patch_complexity", "vision_attention", "noise", "uniform")
FILES = (
    "calibration.json",
    "comparison",
    "comparison.log",
    "curve.png",
    "evaluation",
    "gallery.png",
    "picture.png",
    "report.html",
    "report.json",
    "report.md",
)


def check_request(out: Path, seed: int, force: bool) -> None:
    """LostattnError for the questions that heads are ranked on, and for a folder that is not free."""
    if seed == RANKING_SEED:
        raise LostattnError(f"seed {seed} draws the questions that heads are ranked on: take another --seed")
    check_free(out, force)


def check_free(out: Path, force: bool) -> set[str]:
    """Names of what lies in the folder. LostattnError unless it is free, or of the demo and `force` is given."""
    if not (MODEL / "model.safetensors").is_file():
        raise LostattnError("the demo model is not part of this installation: install lostattn anew")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise LostattnError(f"{out} exists and is not a folder: choose another --out")
    with disk_errors(f"cannot write {out}"):
        result = {path.name for path in out.iterdir()} if out.exists() else set()
        if result and not force:
            raise LostattnError(f"{out} exists and is not empty: choose another --out, or add --force")
        if strange := sorted(result - {"base", *FILES, *map(folder_name, specs(out))}):
            raise LostattnError(f"{out} holds '{strange[0]}', which is not of the demo: choose another --out")
    return result


def unpack_model(out: Path, force: bool) -> Path:
    """Copy the shipped model out of the package.

    Raises:
        LostattnError: the destination exists and force is not given.
    """
    result = check_free(out, force)
    with disk_errors(f"cannot write {out}"):
        for name in result:
            path = out / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(MODEL, out / "base", copy_function=shutil.copyfile)
    return out / "base"


def specs(calibration: Path) -> dict[str, PatchSpec]:
    """What the demo compares: the paper's band in every mode, whole layers, and a negative control."""
    results = {mode: PatchSpec(mode=mode, calibration=str(calibration)) for mode in MODES}
    results[WHOLE_LAYERS] = PatchSpec(mode="patch_complexity", layers="5-7", heads="all")
    results["uniform, all layers"] = PatchSpec(mode="uniform", layers="all", heads="all")
    return results


def folder_name(name: str) -> str:
    """The folder of a patched model by the name of its spec."""
    return name.replace(",", "").replace(" ", "-")
