"""`lostattn demo`: the shipped model patched in every mode, original and patched on the same questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...patches.family import get_family
from ...serving.disk import disk_errors, write_json
from ...serving.evaluation.rate import bar_of
from ...serving.hardware import hardware
from ..calibrate import calibrate
from ..chat import Chat
from ..checkpoint.provenance import versions
from ..patch import patch_from_spec
from .builtin import builtin_examples
from .digits import held_out
from .evaluate import PARSER, evaluate
from .folder import MODEL, check_wish, folder_name, unpack_model, wishes
from .gallery import draw_gallery
from .report import line, markdown
from .served import compare_served

__all__ = ["MODEL", "run_demo", "unpack_model", "wishes"]
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
    planned = wishes(out / "calibration.json")
    bar = bar_of(say, "models", len(planned) + 1)
    chat = Chat.load(base)
    found = calibrate(chat, get_family("qwen2_5_vl"), builtin_examples(64), "pictures of handwritten digits")
    write_json(out / "calibration.json", found.to_json())
    asked = held_out(questions, seed=seed)
    asked[0].image.save(out / "picture.png")
    original = evaluate("original", chat, asked)
    results, answers = [original.result], {"original": original.answers}
    say(line(original.result))
    bar(1)
    for name, spec in planned.items():
        folder = out / folder_name(name)
        patch_from_spec(base, folder, spec, command=f"lostattn demo --questions {questions} --seed {seed}")
        found_here = evaluate(name, Chat.load(folder), asked, original)
        results.append(found_here.result)
        answers[name] = found_here.answers
        say(line(found_here.result))
        bar(len(results))
    draw_gallery(asked, answers).save(out / "gallery.png")
    report = {
        "questions": questions, "seed": seed, "versions": versions(), "hardware": hardware(),
        "threads": torch.get_num_threads(), "prompt": chat.prompt("QUESTION"), "parser": PARSER,
        "results": [asdict(r) for r in results],
    }  # fmt: skip
    if serve:
        whole = out / folder_name("patch_complexity, whole layers 1-5")
        report["served"] = compare_served(base, whole, out / "comparison", seed, say)
    write_json(out / "report.json", report)
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    return report
