"""`lostattn demo`: the shipped model patched in every mode, original and patched on the same questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...patches.family import get_family
from ...serving.disk import disk_errors, write_json
from ...serving.evaluation.store import read_answers
from ..calibrate import calibrate
from ..chat import Chat
from ..evaluation.run import EvalSettings, run_eval
from ..evaluation.tasks import read_tasks
from ..patch import patch_from_spec
from .builtin import builtin_examples
from .digits import held_out
from .evaluate import MAX_TOKENS, demo_rows
from .folder import MODEL, check_wish, folder_name, unpack_model, wishes
from .gallery import draw_gallery
from .report import markdown, page
from .served import compare_served

__all__ = ["MODEL", "run_demo", "unpack_model", "wishes"]
BATCH = 32
Say = Callable[[str], None]


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
    check_wish(out, seed, force)
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
        folder = out / folder_name(name)
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
        whole = out / folder_name("patch_complexity, whole layers 1-5")
        report["served"] = compare_served(base, whole, out / "comparison", seed, say)
    write_json(out / "report.json", report)
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    (out / "report.html").write_text(page(report, out / "gallery.png"), encoding="utf-8")
    return report
