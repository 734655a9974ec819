"""The report of a diagnosis: CSV, Markdown, pictures, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import csv
import html
import io
from pathlib import Path
from typing import Any

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
SCALE_NOTE = (
    "MixIG is the plain definition (nats), which cannot exceed log 2 = 0.69 in size; the paper's Table 1 prints values such as "
    "-0.80, which are on another scale (the authors' code sharpens the cosine weights and divides by log S)."
)


def write_report(report: dict[str, Any], out: Path) -> None:
    """Write diagnose.csv, diagnose.md, models.png, layers.png and diagnose.html into a folder."""
    (out / "diagnose.csv").write_text(csv_text(report), encoding="utf-8")
    (out / "diagnose.md").write_text(markdown(report), encoding="utf-8")
    draw_models(report, out / "models.png")
    draw_layers(report, out / "layers.png")
    (out / "diagnose.html").write_text(page(report, out), encoding="utf-8")


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


def _versions(report: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in report["versions"].items())


def markdown(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    parts = ["# What attention and feed-forward layers add", _intro(report), _markdown_table(table(report))]
    parts += [f"* {name}: {line}" for name, model in report["models"].items() for line in model["verdict"]]
    if moved := comparison(report):
        parts += ["## Against the first model", _markdown_table(moved)]
    parts += [
        SCALE_NOTE,
        "![RID against MixIG](models.png)",
        "![per layer](layers.png)",
        f"Versions: {_versions(report)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(rows: list[list[str]]) -> str:
    head, *body = rows
    return "\n".join(
        ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(r) + " |" for r in body)]
    )


def page(report: dict[str, Any], out: Path) -> str:
    """One HTML page with the pictures inside."""
    verdicts = "".join(
        f"<li><b>{html.escape(name)}</b>: {html.escape(line)}</li>"
        for name, model in report["models"].items()
        for line in model["verdict"]
    )
    moved = comparison(report)
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        "<title>lostattn diagnose</title><style>body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;"
        "padding:0 1em}table{border-collapse:collapse;font-size:13px}td,th{border:1px solid #ccc;padding:3px 8px;"
        "text-align:left}img{max-width:100%}.wide{overflow-x:auto}</style>",
        "<h1>What attention and feed-forward layers add</h1>",
        f"<p>{html.escape(_intro(report))}</p><ul>{verdicts}</ul>",
        f"<div class='wide'>{_html_table(table(report))}</div>",
        f"<h2>RID against MixIG</h2>{_image(out / 'models.png', 'RID against MixIG')}",
        f"<h2>Layer by layer</h2>{_image(out / 'layers.png', 'RID and MixIG of every layer')}",
        f"<h2>Against the first model</h2>{_html_table(moved)}" if moved else "",
        f"<p>{html.escape(SCALE_NOTE)}</p><p>Versions: {html.escape(_versions(report))}.</p></html>",
    ]
    return "\n".join(p for p in parts if p)


def _html_table(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{html.escape(c)}</th>" for c in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in body]
    return f"<table>{''.join(lines)}</table>"


def _image(path: Path, text: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<img alt='{html.escape(text)}' src='data:image/png;base64,{data}'>"
