"""`lostattn demo`: the shipped model patched in every mode, layer by layer and at equal KV saved, on the same questions."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from ...serving.disk import disk_errors, write_json
from ...serving.evaluation.store import read_answers
from ..calibration import Calibration
from ..checkpoint.source import resolve_source
from ..evaluation.evaluate import EvalSettings, run_eval
from ..evaluation.tasks import read_tasks
from ..patch import patch_from_spec
from .digits import held_out
from .evaluate import MAX_TOKENS, demo_rows
from .experiments import headline, try_layers, try_plans
from .folder import CALIBRATION, MODEL, WHOLE_LAYERS, check_request, folder_name, specs, unpack_model
from .gallery import draw_gallery
from .report import curve, markdown, page
from .served import serving

__all__ = ["MODEL", "run_demo", "unpack_model", "specs"]
BATCH = 32


def run_demo(
    out: str | Path,
    questions: int = 100,
    seed: int = 0,
    force: bool = False,
    serve: bool = False,
) -> dict[str, Any]:
    """Unpack, patch with every mode and a negative control, then try layers and plans; all on the same held-out questions.

    Heads and plans are chosen by the calibration that comes with the model; its card says how it was made.

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
    check_request(out, seed, force)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the model is so small that a second thread costs more than it brings
    try:
        with disk_errors(f"cannot write {out}"):
            return _run(out, questions, seed, force, serve)
    finally:
        torch.set_num_threads(threads)


def _run(out: Path, questions: int, seed: int, force: bool, serve: bool) -> dict[str, Any]:
    base = unpack_model(out, force)
    shutil.copyfile(CALIBRATION, out / "calibration.json")
    names = {"base": "original"}
    for name, spec in specs(out / "calibration.json").items():
        folder = out / folder_name(name)
        patch_from_spec(base, folder, spec, command=f"lostattn demo --questions {questions} --seed {seed}")
        names[folder.name] = name
    beside = serving(base, out / folder_name(WHOLE_LAYERS), out / "comparison", seed) if serve else nullcontext()
    with beside as served:
        report = _ask_all(out, base, names, questions, seed)
        _write(report, out)  # before vLLM is waited for, which may fail
        if served is not None:
            report["served"] = served.report()
            write_json(out / "report.json", report)
    return report


def _write(report: dict[str, Any], out: Path) -> None:
    write_json(out / "report.json", report)
    curve(report["plans"], out / "curve.png")
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    (out / "report.html").write_text(page(report, out / "gallery.png"), encoding="utf-8")


def _ask_all(out: Path, base: Path, names: dict[str, str], questions: int, seed: int) -> dict[str, Any]:
    """The report without what vLLM says."""
    asked = read_tasks(["digits"], limit=questions, max_tokens=MAX_TOKENS, seed=seed)
    asked[0].items[0].pictures()[0].save(out / "picture.png")
    settings = EvalSettings(batch=BATCH, seed=seed)
    evaluated = run_eval([str(out / folder) for folder in names], asked, out / "evaluation", settings)
    answers = {name: read_answers(out / "evaluation" / "digits" / f"{folder}.jsonl") for folder, name in names.items()}
    draw_gallery(held_out(8, seed=seed), answers).save(out / "gallery.png")
    source, calibration = resolve_source(base), Calibration.read(out / "calibration.json")
    layers = try_layers(source, asked[0], out / "evaluation", settings)
    plans = try_plans(source, calibration, asked[0], out / "evaluation", settings)
    return {
        "headline": headline(layers, plans),
        "questions": questions,
        "seed": seed,
        "versions": evaluated["versions"],
        "hardware": evaluated["hardware"],
        "threads": evaluated["threads"],
        "parser": evaluated["tasks"][0]["parser"],
        "results": demo_rows(evaluated, names),
        "layers": layers,
        "plans": {name: plans[name] for name in ("original_accuracy", "calibrated_on", "calibration_samples", "rows")},
    }
