"""`lostattn demo`: the shipped model patched in every mode, original and patched on the same questions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...patches.errors import LostattnError
from ...patches.family import get_family
from ...serving.disk import disk_errors, write_json
from ...serving.evaluation.store import read_answers
from ..calibrate import calibrate
from ..chat import Chat
from ..evaluation.run import EvalSettings, run_eval
from ..evaluation.tasks import read_tasks
from ..patch import patch_from_spec
from ..spec import PatchSpec
from .builtin import SEED as CALIBRATION_SEED
from .builtin import builtin_examples
from .digits import held_out
from .evaluate import MAX_TOKENS, demo_rows
from .gallery import draw_gallery
from .report import markdown, page
from .served import compare_served

MODEL = Path(__file__).parent / "model"
BATCH = 32
MODES = ("patch_complexity", "vision_attention", "noise", "uniform")
FILES = (
    "calibration.json",
    "comparison",
    "evaluation",
    "gallery.png",
    "picture.png",
    "report.html",
    "report.json",
    "report.md",
)
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
        The report that is also written to `out/report.json` and `out/report.md`; `out/gallery.png` shows some answers.
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
    names = {"base": "original"}
    for name, spec in wishes(out / "calibration.json").items():
        folder = out / _folder(name)
        patch_from_spec(base, folder, spec, command=f"lostattn demo --questions {questions} --seed {seed}")
        names[folder.name] = name
    asked = read_tasks(["digits"], limit=questions, max_tokens=MAX_TOKENS, seed=seed)
    asked[0].items[0].pictures()[0].save(out / "picture.png")
    settings = EvalSettings(batch=BATCH, seed=seed)
    evaluated = run_eval([str(out / folder) for folder in names], asked, out / "evaluation", settings, say)
    answers = {name: read_answers(out / "evaluation" / "digits" / f"{folder}.jsonl") for folder, name in names.items()}
    draw_gallery(held_out(8, seed=seed), answers).save(out / "gallery.png")
    report = {
        "questions": questions, "seed": seed, "versions": evaluated["versions"], "hardware": evaluated["hardware"],
        "threads": evaluated["threads"], "prompt": chat.prompt("QUESTION"), "parser": evaluated["tasks"][0]["parser"],
        "results": demo_rows(evaluated, names),
    }  # fmt: skip
    if serve:
        whole = out / _folder("patch_complexity, whole layers 1-5")
        report["served"] = compare_served(base, whole, out / "comparison", seed, say)
    write_json(out / "report.json", report)
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    (out / "report.html").write_text(page(report, out / "gallery.png"), encoding="utf-8")
    return report
