"""`lostattn demo`: the shipped model patched in every mode, original and patched on the same questions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...patches.errors import LostattnError
from ...patches.family import get_family
from ...serving.disk import disk_errors, write_json
from ...serving.hardware import hardware
from ..calibrate import calibrate
from ..chat import Chat
from ..checkpoint.provenance import versions
from ..patch import patch_from_spec
from ..spec import PatchSpec
from .builtin import SEED as CALIBRATION_SEED
from .builtin import builtin_examples
from .digits import held_out
from .evaluate import PARSER, evaluate
from .gallery import draw_gallery
from .report import line, markdown, page
from .served import compare_served

MODEL = Path(__file__).parent / "model"
MODES = ("patch_complexity", "vision_attention", "noise", "uniform")
FILES = ("calibration.json", "comparison", "gallery.png", "picture.png", "report.html", "report.json", "report.md")
Say = Callable[[str], None]


def unpack_model(out: Path, force: bool) -> Path:
    """Copy the shipped model out of the package.

    Raises:
        LostattnError: the destination exists and force is not given.
    """
    if not (MODEL / "model.safetensors").is_file():
        raise LostattnError("the demo model is not part of this installation: install lostattn anew")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise LostattnError(f"{out} exists and is not a folder: choose another --out")
    with disk_errors(f"cannot write {out}"):
        found = {path.name for path in out.iterdir()} if out.exists() else set()
        if found and not force:
            raise LostattnError(f"{out} exists and is not empty: choose another --out, or add --force")
        if strange := sorted(found - {"base", *FILES, *map(_folder, wishes(out))}):
            raise LostattnError(f"{out} holds '{strange[0]}', which is not of the demo: choose another --out")
        for name in found:
            path = out / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(MODEL, out / "base", copy_function=shutil.copyfile)
    return out / "base"


def wishes(calibration: Path) -> dict[str, PatchSpec]:
    """What the demo compares: the paper's band in every mode, whole layers, and a negative control."""
    found = {mode: PatchSpec(mode=mode, calibration=str(calibration)) for mode in MODES}
    found["patch_complexity, whole layers 1-5"] = PatchSpec(mode="patch_complexity", layers="1-5", heads="all")
    found["uniform, all layers"] = PatchSpec(mode="uniform", layers="all", heads="all")
    return found


def _folder(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def run_demo(
    out: str | Path,
    questions: int = 500,
    seed: int = 0,
    force: bool = False,
    say: Say = lambda _: None,
    serve: bool = False,
) -> dict[str, Any]:
    """Unpack, calibrate, patch with every mode and a negative control, evaluate all on the same held-out questions.

    Args:
        out: folder for models and report.
        questions: how many, of digits that the model was not trained on.
        serve: end with a short comparison in vLLM, if it is installed; `out/comparison` then holds its report.

    Raises:
        LostattnError: the folder is not free, or the disk refuses.

    Returns:
        The report that is also written to `out/report.json`, `report.md` and `report.html`; `gallery.png` shows some answers.
    """
    out = Path(out)
    if seed == CALIBRATION_SEED:
        raise LostattnError(f"seed {seed} draws the questions that heads are ranked on: take another --seed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the model is so small that a second thread costs more than it brings
    try:
        with disk_errors(f"cannot write {out}"):
            return _run(out, questions, seed, force, say, serve)
    finally:
        torch.set_num_threads(threads)


def _run(out: Path, questions: int, seed: int, force: bool, say: Say, serve: bool) -> dict[str, Any]:
    base = unpack_model(out, force)
    say("calibrating: ranking the heads of the original model")
    chat = Chat.load(base)
    found = calibrate(chat, get_family("qwen2_5_vl"), builtin_examples(64), "pictures of handwritten digits")
    write_json(out / "calibration.json", found.to_json())
    asked = held_out(questions, seed=seed)
    asked[0].image.save(out / "picture.png")
    original = evaluate("original", chat, asked)
    results, answers = [original.result], {"original": original.answers}
    say(line(original.result))
    for name, spec in wishes(out / "calibration.json").items():
        folder = out / _folder(name)
        patch_from_spec(base, folder, spec, command=f"lostattn demo --questions {questions} --seed {seed}")
        found_here = evaluate(name, Chat.load(folder), asked, original)
        results.append(found_here.result)
        answers[name] = found_here.answers
        say(line(found_here.result))
    draw_gallery(asked, answers).save(out / "gallery.png")
    report = {
        "questions": questions, "seed": seed, "versions": versions(), "hardware": hardware(),
        "threads": torch.get_num_threads(), "prompt": chat.prompt("QUESTION"), "parser": PARSER,
        "results": [asdict(r) for r in results],
    }  # fmt: skip
    if serve:
        whole = out / _folder("patch_complexity, whole layers 1-5")
        report["served"] = compare_served(base, whole, out / "comparison", seed, say)
    write_json(out / "report.json", report)
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    (out / "report.html").write_text(page(report, out / "gallery.png"), encoding="utf-8")
    return report
