"""The numbers that `lostattn trace` prints, against attention weights of transformers' own eager mode and plain numpy."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from lostattn.surgery.cli import main
from lostattn.surgery.data import read_question_rows
from lostattn.surgery.demo.demo import MODEL
from transformers import AutoModelForImageTextToText, AutoProcessor

THRESHOLD, ROWS, TOKEN = 0.1, 6, 28
PAPER = {"correct": 0.131, "incorrect": 0.042}  # appendix E


def expected(row: Any, model: Any, processor: Any) -> dict[str, Any]:
    """Appendix E for one question: one visual token is one cell of the picture, and boxes are whole cells."""
    image, question, boxes = (row.values[k] for k in ("image", "question", "boxes"))
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=[prompt], images=[image], return_tensors="pt")
    with torch.no_grad():
        attentions = model(**inputs, use_cache=False, output_attentions=True).attentions
        new = model.generate(**inputs, max_new_tokens=4, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    visual = (inputs["input_ids"][0] == model.config.image_token_id).numpy()
    key = np.zeros(int(visual.sum()), dtype=bool)
    for x, y, width, height in boxes:
        for row in range(y // TOKEN, (y + height) // TOKEN):
            for col in range(x // TOKEN, (x + width) // TOKEN):
                key[row * (image.width // TOKEN) + col] = True
    layers = []
    for weights in attentions:
        mean = weights[0].double().numpy().mean(0)[visual][:, visual]
        looks, seen = np.nonzero(mean >= THRESHOLD)
        touches = key[looks] | key[seen]
        layers.append(
            {
                "edges": len(looks),
                "edges_without_loops": int((looks != seen).sum()),
                "key_edges": int(touches.sum()),
                "rho": float(touches.mean()) if len(looks) else None,
                "weights": {(int(j), int(i)): mean[i, j] for i, j in zip(looks, seen, strict=True)},
            }
        )
    ratios = [x["rho"] for x in layers if x["rho"] is not None]
    answer = processor.batch_decode(new, skip_special_tokens=True)[0].strip()
    return {
        "answer": answer,
        "layers": layers,
        "key_tokens": int(key.sum()),
        "visual_tokens": len(key),
        "mean_rho": sum(ratios) / len(ratios) if ratios else None,
    }


@pytest.fixture(scope="module")
def asked() -> list[tuple[Any, dict[str, Any]]]:
    torch.set_num_threads(1)
    model = AutoModelForImageTextToText.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager").eval()
    processor = AutoProcessor.from_pretrained(MODEL)
    return [(row, expected(row, model, processor)) for row in read_question_rows(f"digits:{ROWS}")]


def trace(*arguments: object) -> Any:
    done = CliRunner().invoke(
        main, ["trace", str(MODEL), "--dtype", "float32", "--max-new-tokens", "4", *map(str, arguments)]
    )
    assert done.exit_code == 0, done.output
    return done


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def test_one_picture(asked: Any, tmp_path: Path) -> None:
    row, wanted = next((r, w) for r, w in asked if w["visual_tokens"] > 9)
    row.values["image"].save(tmp_path / "p.png")
    (tmp_path / "b.json").write_text(json.dumps(row.values["boxes"]))
    one = ("--image", tmp_path / "p.png", "--question", row.values["question"], "--boxes", tmp_path / "b.json")
    report = json.loads(trace(*one, "--out", tmp_path / "a", "--json").stdout)
    for name in ("answer", "key_tokens", "visual_tokens"):
        assert report[name] == wanted[name], name
    assert report["mean_rho"] == pytest.approx(wanted["mean_rho"], abs=1e-9)
    for found, layer in zip(report["layers"], wanted["layers"], strict=True):
        for name in ("edges", "edges_without_loops", "key_edges"):
            assert found[name] == layer[name], name
        assert found["rho"] == (layer["rho"] if layer["rho"] is None else pytest.approx(layer["rho"], abs=1e-9))
    with (tmp_path / "a" / "edges.csv").open() as file:
        edges = {(int(x["layer"]), int(x["j"]), int(x["i"])): float(x["weight"]) for x in csv.DictReader(file)}
    weights = {(n, *pair): w for n, layer in enumerate(wanted["layers"]) for pair, w in layer["weights"].items()}
    assert edges == pytest.approx(weights, abs=2e-5)
    printed = trace(*one, "--out", tmp_path / "t").stdout
    lines = [re.split(r"\s{2,}", line) for line in printed.splitlines() if re.match(r"\d", line)][
        : len(wanted["layers"])
    ]
    for number, (line, layer) in enumerate(zip(lines, wanted["layers"], strict=True)):
        rho = "-" if layer["rho"] is None else percent(layer["rho"])
        assert line == [str(number), str(layer["edges"]), str(layer["edges_without_loops"]), rho]
    share = percent(wanted["key_tokens"] / wanted["visual_tokens"])
    assert f"mean rho {percent(wanted['mean_rho'])}; {share} of the visual tokens" in printed


def test_rows_of_data(asked: Any, tmp_path: Path) -> None:
    done = trace("--data", f"digits:{ROWS}", "--out", tmp_path / "a")
    report = json.loads((tmp_path / "a" / "trace.json").read_text())
    right = [w["answer"].casefold().startswith(row.values["answer"].casefold()) for row, w in asked]
    for name, value in (("correct", True), ("incorrect", False)):
        group = [w for (_, w), r in zip(asked, right, strict=True) if r is value]
        ratios = [w["mean_rho"] for w in group if w["mean_rho"] is not None]
        assert report[name]["n"] == len(group) and report["paper"][name] == PAPER[name]
        assert report[name]["without_edges"] == len(group) - len(ratios)
        if not ratios:
            assert report[name]["rho"] is None
            continue
        shares = [w["key_tokens"] / w["visual_tokens"] for w in group]
        assert report[name]["key_share_of_tokens"] == pytest.approx(np.mean(shares))
        rho = report[name]["rho"]
        assert rho["n"] == len(ratios) and rho["mean"] == pytest.approx(np.mean(ratios))
        if len(ratios) > 1:
            half = 1.96 * np.std(ratios, ddof=1) / len(ratios) ** 0.5
            assert (rho["low"], rho["high"]) == pytest.approx((rho["mean"] - half, rho["mean"] + half))
        for number, found in enumerate(report[name]["layers"]):
            layer = [w["layers"][number]["rho"] for w in group if w["layers"][number]["rho"] is not None]
            assert found is None if not layer else found["mean"] == pytest.approx(np.mean(layer))
        assert percent(np.mean(ratios)) in done.stdout and percent(np.mean(shares)) in done.stdout
    assert report["samples"] == ROWS and any(right)
