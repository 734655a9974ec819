"""Every number that `lostattn diagnose` prints, against the paper's equations in numpy and plain runs of transformers.

Nothing of `surgery.measures`, `surgery.spectrum` and `surgery.diagnosis` is used for what is expected: states come from the
outputs of the modules of transformers' own model, rotary positions are taken away by position ids of 0 (where the rotation
is the identity), and the measures are written here from section 3.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from lostattn.surgery import patch_checkpoint
from lostattn.surgery.cli import main
from lostattn.surgery.demo.demo import MODEL
from lostattn.surgery.demo.digits import held_out
from transformers import AutoModelForImageTextToText, AutoProcessor

QUESTIONS, SEED = 2, 7
NAMES = ("erank_new", "delta_s", "delta_d", "rid", "tme_new", "mixig")
MODULES = ("attention", "feed_forward", "noise_delta", "noise_qkv", "noise_ffn")
Step = dict[str, float]


# the paper's section 3


@functools.lru_cache(maxsize=256)
def _parts(content: bytes, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.linalg.svd(np.frombuffer(content).reshape(shape), full_matrices=False)


def svd(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U, sigma, V' of a state, each state's once."""
    return _parts(np.ascontiguousarray(x).tobytes(), x.shape)


def erank(x: np.ndarray) -> float:
    """Def. 3.4."""
    values = svd(x)[1]
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def delta_d(x: np.ndarray, new: np.ndarray) -> float:
    """Section 3.3.1, with projectors; the numerical rank is that of float32 states."""
    left, values, right = svd(x)
    rank = int((values > max(x.shape) * np.finfo(np.float32).eps * values[0]).sum())
    columns, rows = left[:, :rank] @ left[:, :rank].T, right[:rank].T @ right[:rank]
    size = np.linalg.norm(new)
    outside = np.linalg.norm(new - columns @ new) if rank < x.shape[0] else 0.0
    across = np.linalg.norm(new - new @ rows) if rank < x.shape[1] else 0.0
    return float((outside + across) / (2 * size))


def rid(x: np.ndarray, new: np.ndarray) -> float:
    """Def. 3.6."""
    return abs(erank(new) - erank(x)) / min(x.shape) + delta_d(x, new)


def tme(x: np.ndarray) -> float:
    """Def. 3.7."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    weights = (np.clip(unit @ unit.T, -1, 1) + 1) / 2
    mixing = weights / weights.sum(1, keepdims=True)
    return float(-(mixing * np.log(np.where(mixing > 0, mixing, 1))).sum() / len(x))


def measured(x: np.ndarray, new: np.ndarray) -> Step:
    change = abs(erank(new) - erank(x)) / min(x.shape)
    return {
        "erank_new": erank(new),
        "delta_s": change,
        "delta_d": delta_d(x, new),
        "rid": change + delta_d(x, new),
        "tme_new": tme(new),
        "mixig": tme(new) - tme(x),
    }


# plain runs


def states(model: Any, inputs: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """X_in, X_attn, X_ffn of every layer, added up from what the layers' modules give out."""
    layers, outputs, hooks = model.model.language_model.layers, {}, []
    for number, layer in enumerate(layers):
        for name, module in (("attention", layer.self_attn), ("mlp", layer.mlp)):
            hooks.append(
                module.register_forward_hook(lambda m, a, out, key=(number, name): outputs.__setitem__(key, out))
            )
    try:
        with torch.no_grad():
            first = model(**inputs, output_hidden_states=True, use_cache=False).hidden_states[0]
    finally:
        for hook in hooks:
            hook.remove()
    found, x = [], first
    for number in range(len(layers)):
        attention, mlp = outputs[number, "attention"][0], outputs[number, "mlp"]
        middle = x + attention
        after = middle + mlp
        found.append(tuple(s[0].double().numpy() for s in (x, middle, after)))
        x = after
    return found


@contextmanager
def gaussian(model: Any, names: Sequence[str]) -> Iterator[None]:
    """Decoder weights drawn anew with their own mean and standard deviation, each from a seed of its own name."""
    found = [(n, m.weight) for n, m in model.model.language_model.layers.named_modules() if n.split(".")[-1] in names]
    kept = [weight.detach().clone() for _, weight in found]
    with torch.no_grad():
        for name, weight in found:
            seed = int.from_bytes(hashlib.sha256(f"{SEED} {name}".encode()).digest()[:7], "big")
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
            weight.copy_(noise * weight.std(correction=0) + weight.mean())
        yield
        for (_, weight), old in zip(found, kept, strict=True):
            weight.copy_(old)


def expected_sample(model: Any, inputs: dict[str, Any], rows: np.ndarray) -> dict[str, list[Step]]:
    """Module -> a step for every layer; `rope` -> {"rid": ...} for every layer but the first."""
    still = {**inputs, "position_ids": torch.zeros(3, 1, inputs["input_ids"].shape[1], dtype=torch.long)}
    own, unrotated = ([[s[rows] for s in layer] for layer in states(model, i)] for i in (inputs, still))
    found: dict[str, list[Step]] = {
        "attention": [measured(x, a) for x, a, _ in own],
        "feed_forward": [measured(a, f) for _, a, f in own],
        "rope": [{"rid": rid(o[0], s[0])} for o, s in zip(own[1:], unrotated[1:], strict=True)],
        "reversed": [{"rid": rid(s[0], o[0])} for o, s in zip(own[1:], unrotated[1:], strict=True)],
    }
    found["noise_delta"] = []
    for number, (x, a, _) in enumerate(own):
        draw = torch.randn(x.shape, generator=torch.Generator().manual_seed(SEED * 1000 + number), dtype=torch.float64)
        update = a - x
        noisy = x + update.mean() + draw.numpy() * update.std()
        found["noise_delta"].append(measured(x, noisy.astype(np.float32).astype(np.float64)))
    with gaussian(model, ("q_proj", "k_proj", "v_proj")):
        found["noise_qkv"] = [measured(x[rows], a[rows]) for x, a, _ in states(model, inputs)]
    with gaussian(model, ("gate_proj", "up_proj", "down_proj")):
        found["noise_ffn"] = [measured(a[rows], f[rows]) for _, a, f in states(model, inputs)]
    return found


def expected_samples(folder: Path, tokens: str) -> list[dict[str, list[Step]]]:
    """The same for the questions of `digits`, by transformers alone."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(MODEL)
    found = []
    for q in held_out(QUESTIONS):
        content = [{"type": "image"}, {"type": "text", "text": q.question}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        inputs = dict(processor(text=[prompt], images=[q.image], return_tensors="pt"))
        visual = (inputs["input_ids"][0] == model.config.image_token_id).numpy()
        rows = {"all": np.ones_like(visual), "visual": visual, "text": ~visual}[tokens]
        found.append(expected_sample(model, inputs, rows))
    return found


def interval(values: Sequence[float]) -> dict[str, Any]:
    mean = sum(values) / len(values)
    half = 1.96 * (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5 / len(values) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def expected_model(samples: list[dict[str, list[Step]]]) -> dict[str, Any]:
    """What the report shall hold of a model, but for its plan and verdict."""
    depth = len(samples[0]["attention"])
    modules = {
        m: {n: interval([sum(step[n] for step in s[m]) / depth for s in samples]) for n in NAMES} for m in MODULES
    }
    layers = {m: {n: [interval([s[m][i][n] for s in samples]) for i in range(depth)] for n in NAMES} for m in MODULES}
    rope, other = ([[step["rid"] for step in s[name]] for s in samples] for name in ("rope", "reversed"))
    return {
        "reversed": [None, *(interval([r[i] for r in other]) for i in range(depth - 1))],
        "samples": QUESTIONS,
        "modules": modules,
        "layers": layers,
        "rope": interval([sum(r) / len(r) for r in rope]),
        "rope_layers": [None, *(interval([r[i] for r in rope]) for i in range(depth - 1))],
    }


def close(found: Any, wanted: Any, at: str = "") -> None:
    """Equal in structure; numbers to what float32 states leave."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), at
        for key in wanted:
            close(found[key], wanted[key], f"{at}/{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), at
        for i, (f, w) in enumerate(zip(found, wanted, strict=True)):
            close(f, w, f"{at}/{i}")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=2e-4, abs=2e-5), at
    else:
        assert found == wanted, at


@pytest.fixture(scope="module", params=["all", "visual", "text"])
def told(request: Any, tmp_path_factory: Any) -> tuple[dict[str, Any], dict[str, Any], Path, str]:
    """The report of the command as it prints it, what is expected, its folder, and the same run's text."""
    torch.set_num_threads(1)
    here = tmp_path_factory.mktemp("numbers")
    patch_checkpoint(MODEL, here / "sap", layers="1-5", heads="all", mode="uniform")
    arguments = ["diagnose", str(here / "sap"), "--compare", str(MODEL), "--data", f"digits:{QUESTIONS}", "--controls"]
    arguments += ["--seed", str(SEED), "--tokens", request.param, "--out", str(here / "out")]
    run = CliRunner().invoke(main, [*arguments, "--json"])
    assert run.exit_code == 0, run.output
    again = CliRunner().invoke(main, arguments)
    wanted = {
        name: expected_model(expected_samples(f, request.param))
        for name, f in (("model", MODEL), ("sap", here / "sap"))
    }
    return json.loads(run.stdout), wanted, here / "out", again.stdout


def test_json(told: Any) -> None:
    report, wanted, out, _ = told
    assert report["questions"] == QUESTIONS and report["data"] == f"the demo (digits:{QUESTIONS})"
    assert report["settings"]["seed"] == SEED and list(report["models"]) == ["model", "sap"]
    for name, model in report["models"].items():
        numbers = {k: v for k, v in model.items() if k not in ("patched", "plan", "paths", "verdict")}
        close(numbers, {k: v for k, v in wanted[name].items() if k != "reversed"}, name)
    assert json.loads((out / "diagnose.json").read_text()) == report
    plain, patched = (report["models"][m]["paths"] for m in ("model", "sap"))
    runs = (1 + 2) * QUESTIONS  # one of each question with both versions side by side, two with other weights
    assert plain == {} and sum(patched.values()) == runs * 5, "a call of every patched layer in every run"


def test_csv(told: Any) -> None:
    _, wanted, out, _ = told
    with (out / "diagnose.csv").open() as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        model, layer = wanted[line["model"]], int(line["layer"])
        cell = (
            model["rope_layers"][layer]
            if line["module"] == "rope"
            else model["layers"][line["module"]][line["measure"]][layer]
        )
        close(
            {k: float(line[k]) for k in ("mean", "low", "high")},
            {k: cell[k] for k in ("mean", "low", "high")},
            str(line),
        )
        assert int(line["n"]) == QUESTIONS
    depth = len(wanted["model"]["rope_layers"])
    assert len(lines) == 2 * (len(MODULES) * len(NAMES) * depth + depth - 1)


def numbers_in(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"(?<![\w.])[-+]?\d+\.\d+", text)]


def near(found: Sequence[float], wanted: Sequence[float], digits: float = 1e-3) -> None:
    assert len(found) == len(wanted) and np.allclose(found, wanted, atol=0.51 * digits + 2e-5, rtol=3e-4), (
        found,
        wanted,
    )


def cell(x: dict[str, Any]) -> list[float]:
    return [x["mean"], x["low"], x["high"]]


def rows_wanted(wanted: dict[str, Any]) -> list[list[float]]:
    """Numbers of every row of the table, in its order."""
    found = []
    for model in wanted.values():
        found += [[n for name in NAMES for n in cell(model["modules"][m][name])] for m in MODULES]
        found.append(cell(model["rope"]))
    base, other = wanted["model"]["modules"], wanted["sap"]["modules"]
    found += [[other[m][n]["mean"] - base[m][n]["mean"] for n in ("rid", "mixig")] for m in MODULES]
    return found


def unwrapped(printed: str) -> list[str]:
    """Rows of printed tables, the lines of each cell together; a line of dashes tells the columns."""
    rows: list[list[str]] = []
    columns: list[tuple[int, int]] = []
    for line in printed.splitlines():
        if re.fullmatch(r"-+(  -+)+", line):
            columns = [m.span() for m in re.finditer("-+", line)]
        elif columns and line.strip() and not line[columns[0][1] : columns[1][0]].strip():
            cells = [line[start:end].strip() for start, end in columns]
            if cells[0]:
                rows.append(cells)
            else:
                rows[-1] = [f"{a} {b}" for a, b in zip(rows[-1], cells, strict=True)]
    return ["  ".join(row) for row in rows]


def test_tables_of_page_markdown_and_terminal(told: Any) -> None:
    _, wanted, out, printed = told
    page, markdown = (out / "diagnose.html").read_text(), (out / "diagnose.md").read_text()
    by_page = [re.sub("<[^>]*>", " ", row) for row in re.findall(r"<tr>(.*?)</tr>", page) if "<td>" in row]
    by_markdown = [x for x in markdown.splitlines() if x.startswith("| ") and not x.startswith(("| model | module",))]
    by_terminal = [x for x in unwrapped(printed) if re.match(r"(model|sap)  ", x) and not x.startswith("model  module")]
    for rows in (by_page, by_markdown, by_terminal):
        found = [numbers_in(row) for row in rows]
        assert len(found) == len(rows_wanted(wanted))
        for have, want in zip(found, rows_wanted(wanted), strict=True):
            near(have, want)


def test_verdicts(told: Any) -> None:
    """Which claim holds is decided here from the expected numbers."""
    report, wanted, out, printed = told
    for name, model in wanted.items():
        lines = report["models"][name]["verdict"]
        attention, ffn = (model["modules"][m] for m in ("attention", "feed_forward"))
        a, f, rope = attention["rid"]["mean"], ffn["rid"]["mean"], model["rope"]["mean"]
        near(numbers_in(lines[0]), [a, f])
        near(numbers_in(lines[1]), [attention["mixig"]["mean"], ffn["mixig"]["mean"]])
        assert abs(numbers_in(lines[2])[0] - a / rope) < 0.051 and abs(numbers_in(lines[2])[1] - rope) < 6e-4
        held = (a < f, attention["mixig"]["mean"] > ffn["mixig"]["mean"], a <= 2 * rope)
        for line, holds in zip(lines, held, strict=True):
            assert ("NOT" not in line) == holds and ("as the paper says" in line) == holds, line
            assert line in (out / "diagnose.md").read_text() and f"{name}: {line}" in printed


def test_the_order_of_rope_is_the_papers(told: Any) -> None:
    """RID is not symmetric: the other way round would be other numbers than those of the report."""
    report, wanted, _, _ = told
    for name in wanted:
        told_rope, other = (
            m["rope_layers"][1:] for m in (report["models"][name], {"rope_layers": wanted[name]["reversed"]})
        )
        assert max(abs(t["mean"] - o["mean"]) for t, o in zip(told_rope, other, strict=True)) > 5e-4
