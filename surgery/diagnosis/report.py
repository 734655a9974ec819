"""The report of a diagnosis: CSV, Markdown, pictures, and one HTML page that needs nothing else."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from ...serving.pages.charts import need_matplotlib, png, svg
from ...serving.pages.render import render
from ...serving.pages.words import named
from ...serving.pages.words import table as markdown_table
from .figures import LABELS, draw_layers, draw_models
from .samples import MEASURES

SHORT = {
    "erank_new": "eRank after",
    "delta_s": "DeltaS",
    "delta_d": "DeltaD",
    "rid": "RID",
    "tme_new": "TME after",
    "mixig": "MixIG",
}
TITLE = "What attention and feed-forward layers add"
SCALE_NOTE = (
    "MixIG is the plain definition (nats), which cannot exceed log 2 = 0.69 in size; the paper's Table 1 prints values such as "
    "-0.80, which are on another scale (the authors' code sharpens the cosine weights and divides by log S)."
)


def write_report(report: dict[str, Any], out: Path) -> None:
    """Write diagnose.csv, diagnose.md, models.png, layers.png and diagnose.html into a folder."""
    need_matplotlib()
    (out / "diagnose.csv").write_text(csv_text(report), encoding="utf-8")
    (out / "diagnose.md").write_text(markdown(report), encoding="utf-8")
    png(out / "models.png", *draw_models(report))
    png(out / "layers.png", *draw_layers(report))
    (out / "diagnose.html").write_text(page(report), encoding="utf-8")


def number(x: dict[str, Any], digits: int = 3, signed: bool = False) -> str:
    """`0.061 [0.058, 0.064]`."""
    sign = "+" if signed else ""
    text = f"{x['mean']:{sign}.{digits}f}"
    return text if x["low"] is None else f"{text} [{x['low']:{sign}.{digits}f}, {x['high']:{sign}.{digits}f}]"


def table(report: dict[str, Any]) -> list[list[str]]:
    """Table 1 of the paper for every model: head and rows."""
    rows = [["model", "module", *SHORT.values()]]
    for name, model in report["models"].items():
        for module, measures in model["modules"].items():
            cells = [number(measures[m], 4 if m == "mixig" else 3) for m in MEASURES]
            rows.append([name, LABELS[module], *cells])
        if "rope" in model:
            rows.append([name, "eps_RoPE", "", "", "", number(model["rope"]), "", ""])
    return rows


def comparison(report: dict[str, Any]) -> list[list[str]]:
    """How the other models move the two measures against the first: head and rows; empty for one model."""
    (base_name, base), *others = report["models"].items()
    if not others:
        return []
    rows = [["model", "module", f"RID minus that of {base_name}", "MixIG minus"]]
    for name, model in others:
        for module in model["modules"]:
            delta = [model["modules"][module][m]["mean"] - base["modules"][module][m]["mean"] for m in ("rid", "mixig")]
            rows.append([name, LABELS[module], f"{delta[0]:+.4f}", f"{delta[1]:+.5f}"])
    return rows


def csv_text(report: dict[str, Any]) -> str:
    """One line per model, module, layer and measure."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["model", "module", "layer", "measure", "mean", "low", "high", "n"])
    for name, model in report["models"].items():
        for module, measures in model["layers"].items():
            for measure, layers in measures.items():
                for layer, x in enumerate(layers):
                    writer.writerow([name, module, layer, measure, x["mean"], x["low"], x["high"], x["n"]])
        for layer, x in enumerate(model.get("rope_layers", [])):
            if x is not None:
                writer.writerow([name, "rope", layer, "rid", x["mean"], x["low"], x["high"], x["n"]])
    return file.getvalue()


def _intro(report: dict[str, Any]) -> str:
    settings = report["settings"]
    return (
        f"{report['questions']} questions ({report['data']}), {settings['tokens']} tokens, seed {settings['seed']}; mean over "
        "layers, then over questions, with 95 % intervals over questions. Attention: X_in to X_attn; feed-forward: X_attn to "
        "X_ffn; eRank and TME are those of the state behind the step."
    )


def markdown(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    parts = [f"# {TITLE}", _intro(report), _lines(table(report))]
    parts += [f"* {name}: {line}" for name, model in report["models"].items() for line in model["verdict"]]
    if moved := comparison(report):
        parts += ["## Against the first model", _lines(moved)]
    parts += [
        SCALE_NOTE,
        "![RID against MixIG](models.png)",
        "![per layer](layers.png)",
        f"Versions: {named(report['versions'])}.",
    ]
    return "\n\n".join(parts) + "\n"


def _lines(rows: list[list[str]]) -> str:
    return "\n".join(markdown_table(rows[0], rows[1:]))


def page(report: dict[str, Any]) -> str:
    """One HTML page that stands alone."""
    settings = {k: str(v) for k, v in report["settings"].items()}
    verdicts = [(name, [_badge(line) for line in model["verdict"]]) for name, model in report["models"].items()]
    return render(
        "diagnose",
        title=TITLE,
        intro=_intro(report),
        verdicts=verdicts,
        rows=table(report),
        moved=comparison(report),
        models=svg(*draw_models(report), "RID against MixIG"),
        layers=svg(*draw_layers(report), "RID and MixIG of every layer"),
        note=SCALE_NOTE,
        facts={"versions": named(report["versions"]), "settings": named(settings)},
    )


def _badge(line: str) -> tuple[str, str]:
    """A verdict as what it says of the paper, and the rest."""
    said = next((words for words in ("as the paper says", "against the paper") if words in line), "")
    return said, line.replace(f", {said}", "") if said else line
