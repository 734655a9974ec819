"""Made-up reports of every command, for tests of pages."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

from lostattn.serving.pages.charts import PALETTE
from lostattn.serving.stats import Equivalence, equivalence, holm, mcnemar, paired_difference, verdict
from lostattn.surgery.demo.experiments import headline
from PIL import Image, ImageDraw

LONG = "Qwen2.5-VL-7B-Instruct-vision_attention-layers-8-19-heads-band-0.2-0.8-calibrated-on-vmcbench"
HOSTILE = '<script>alert("1")</script> $x_1$ & **co** | <b>'
TASKS = (
    "pope",
    "mmmu",
    "realworldqa",
    "vmcbench",
    "hallusionbench",
    "mathvista",
    "3dsrbench",
    "digits",
    "chartqa",
    "a_task_of_ones_own",
)
NAMES = (
    "Qwen2.5-VL-7B",
    "sap-vision",
    "sap-noise",
    "sap-uniform",
    LONG,
    HOSTILE,
    "m7",
    "m8",
    "m9",
    "m10",
    "m11",
    "m12",
)
HARM = (0.0, 0.002, 0.18, 0.02, 0.006, 0.01, 0.0, 0.004, 0.03, 0.001, 0.05, 0.002)
PLAN = {"mode": "vision_attention", "layers": "8-19", "heads": "band 0.2-0.8 of 784", "whole_groups": "18 of 112"}


def answers(task: str, model: int, n: int) -> list[bool]:
    """Right and wrong answers that change with the model's harm."""
    draw = random.Random(task)
    base = [draw.random() < 0.83 for _ in range(n)]
    own = random.Random(f"{task} {model}")
    return [right if own.random() > HARM[model] * 1.6 else own.random() < 0.4 for right in base]


def results(tasks: tuple[str, ...], names: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for number, task in enumerate(tasks):
        n = (9000, 900, 765, 1000, 1129, 300, 2000, 500, 200, 60)[number % 10]
        first = answers(task, 0, n)
        for i, name in enumerate(names):
            right = answers(task, i, n)
            own = paired_difference([False] * n, right)
            row: dict[str, Any] = {
                "task": task,
                "model": name,
                "n": n,
                "main": own.difference,
                "main_name": "accuracy",
                "unparsed": i,
                "cut": 0,
                "accuracy": {"share": own.difference, "low": own.low, "high": own.high},
                "seconds": 1.0,
                "metrics": {"n": n, "accuracy": own.difference, "f1": 0.5},
                "paths": {"closed": n},
            }
            if i:
                pairs = list(zip(first, right, strict=True))
                row |= {
                    "difference": asdict(paired_difference(first, right)),
                    "p": mcnemar(first, right),
                    "gained": sum(b and not a for a, b in pairs),
                    "lost": sum(a and not b for a, b in pairs),
                    "agreement": 0.97,
                    "same_text": 0.95,
                    "equivalence": asdict(equivalence(first, right)),
                }
            rows.append(row)
    compared = [row for row in rows if "p" in row]
    for row, p in zip(compared, holm([row["p"] for row in compared]), strict=True):
        row["p_holm"] = p
        row["verdict"] = verdict(row["difference"]["difference"], p, Equivalence(**row["equivalence"]))
    return rows


def circumstances(command: str) -> dict[str, Any]:
    return {
        "how": {
            "backend": "transformers",
            "dtype": "bfloat16",
            "options": ["--enforce-eager", "--max-model-len", "4096"],
        },
        "seed": 0,
        "harness": "lostattn",
        "hardware": "NVIDIA H200 (141 GB), 16 cores",
        "threads": 8,
        "versions": {"lostattn": "1", "torch": "2.13.0", "transformers": "5.19.0", "vllm": "0.32.0"},
        "command": f"lostattn {command} ./Qwen2.5-VL-7B ./sap --task pope --data ./POPE --out results",
    }


def task_rows(tasks: tuple[str, ...], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    n = {row["task"]: row["n"] for row in found}
    return [
        {
            "task": t,
            "n": n[t],
            "data": f"./{t.upper()}",
            "prompt": f"{t}-default/1",
            "max_tokens": 16,
            "parser": "yesno/3",
            "main": "accuracy",
            "clusters": 500 if t == "pope" else None,
            "first_prompt": "<image>Is there a snowboard in the image?\nAnswer with yes or no.",
        }
        for t in tasks
    ]


def changed(tasks: tuple[str, ...], names: tuple[str, ...], each: int) -> tuple[list[dict[str, Any]], dict[Any, Any]]:
    """Questions with short, long and unbreakable answers, and their pictures."""
    said = (
        "no",
        "Yes, there is a dog on the left side of the picture, next to the bicycle.",
        "B",
        "https://example.org/" + "a" * 90,
        "",
    )
    found, pictures = [], {}
    for task in tasks:
        for i in range(each):
            rows = [
                {"model": m, "text": said[(i + (j > 0)) % 5], "answer": "no", "correct": not j}
                for j, m in enumerate(names)
            ]
            question = "<image>Is there a snowboard in the image?\nAnswer with yes or no."
            found.append({"task": task, "id": str(i), "row": i, "question": question, "gold": "no", "answers": rows})
            pictures[task, str(i)] = picture(i)
    return found, pictures


def picture(i: int) -> Image.Image:
    made = Image.new("RGB", (640, 480) if i % 2 else (56, 84), PALETTE[i % 6])
    ImageDraw.Draw(made).ellipse((10, 10, made.width - 10, made.height // 2), fill="#f4d35e")
    return made


def evaluation(
    tasks: int = 2, models: int = 3, command: str = "eval", bench: bool = False
) -> tuple[dict[str, Any], dict[Any, Any]]:
    """A report of eval or compare, and pictures of its questions."""
    wanted, names = TASKS[:tasks], NAMES[:models]
    found = results(wanted, names)
    questions, pictures = changed(wanted, names, 5)
    report = {
        "command_name": command,
        "tasks": task_rows(wanted, found),
        "results": found,
        "changed": questions,
        "models": [
            {
                "name": n,
                "identity": n,
                "plan": PLAN if i else None,
                "sap": {"mode": "noise", "heads": [1]} if i else None,
            }
            for i, n in enumerate(names)
        ],
        **circumstances(command),
    }
    if command == "compare":
        for i, model in enumerate(report["models"]):
            shares = [{"visual": v, "kv_share": 1 - i * 0.08} for v in (256, 1024, 4096, 16384)]
            model |= {"folder": f"./{i}", "predicted_kv": shares}
        report["bench"] = benchmark(names) if bench else None
    return report, pictures


def spread(value: float) -> dict[str, float]:
    return {"median": value, "low": value * 0.93, "high": value * 1.06, "n": 3}


def benchmark(names: tuple[str, ...] = NAMES[:3], loads: bool = True) -> dict[str, Any]:
    """A report of `bench serve`."""
    kv, summary = [], []
    for visual in (256, 1024, 4096) if loads else ():
        for i, name in enumerate(names):
            size = int((visual / (1 + 0.3 * i) + 160) * 57344)
            kv.append(
                {
                    "side": name,
                    "visual": visual,
                    "text": 160,
                    "blocks": size // 4096,
                    "bytes": size,
                    "fit": 2**34 // size,
                    "predicted_bytes": int(size * 0.98),
                }
            )
        for at_once in (1, 8):
            for i, name in enumerate(names):
                speed = 1 + 0.04 * i * visual / 1024
                rates = {
                    f: spread(90 * at_once**0.7 * speed * 1000 / (600 + visual))
                    for f in ("output_tokens_per_s", "requests_per_s")
                }
                rates["decode_tokens_per_s"] = spread(140 * at_once**0.8 * speed)
                figures = rates | {f: spread(8 + visual / 9 / speed) for f in ("ttft_ms", "tpot_ms", "itl_ms")}
                ratios = {f: spread(speed) for f in figures} if i else {}
                summary.append(
                    {
                        "side": name,
                        "visual": visual,
                        "concurrency": at_once,
                        "repeats": 3,
                        "figures": figures,
                        "ratios": ratios,
                        "predicted_decode_ratio": speed * 1.05 if i else None,
                    }
                )
    server = {"max_concurrency": 14.5, "longest": 8192, "peak_memory": 18 * 2**30, "dtype": "bfloat16"}
    settings = {"text_tokens": 96, "output_tokens": 64, "repeats": 3}
    return {
        "base": names[0],
        "settings": settings,
        "options": ["--max-model-len", "8192"],
        "together": True,
        "loads": [],
        "models": [{"name": n, "folder": n, "plan": PLAN, "server": server} for n in names],
        "kv": kv,
        "summary": summary,
        "versions": {"vllm": "0.32.0"},
        "hardware": "NVIDIA H200 (141 GB), 16 cores",
    }


def sweep() -> dict[str, Any]:
    """A report of `sweep`: the paper's Table 2, a grid of two axes, and Table 8."""
    modes, windows, bands = (
        ("noise", "uniform", "vision_attention"),
        ("0-7", "8-19", "20-27", "all"),
        ("[0.0, 0.3]", "[0.2, 0.8]"),
    )
    labels = [
        {"mode": m, "layers": w, "heads": "all", "queries": "all", "scores": "raw"} for m in modes for w in windows
    ]
    points = [
        {"grid": grid, "key": f"{i:012x}", "labels": label}
        for grid in ("table2", "mine")
        for i, label in enumerate(labels)
    ]
    points += [{"grid": "table8", "key": f"{i:012x}", "labels": labels[i] | {"heads": bands[i]}} for i in range(2)]
    keys = ("original", *(f"{i:012x}" for i in range(12)))
    found = results(("pope", "mmmu"), NAMES[:1] + NAMES[1:12])
    more = [{**row, "model": keys[12]} for row in found if row["model"] == NAMES[3]]
    found = [{**row, "model": keys[NAMES.index(row["model"])]} for row in found] + more
    for row in found:
        row["metrics"] = row["metrics"] | {"random/accuracy": 0.8, "popular/accuracy": 0.7}
    grids = (
        ("table2", "table2", ["mode", "layers"]),
        ("mine", "", ["mode", "layers"]),
        ("table8", "table8", ["heads"]),
    )
    plan = PLAN | {"preset": "paper", "scores": "raw", "queries": "all"}
    return {
        "base": LONG,
        "grids": [{"name": n, "layout": layout, "varying": axes} for n, layout, axes in grids],
        "points": points,
        "notes": ["layers 20-27 have no heads in the band"],
        "plans": {k: {"plan": plan, "sap": {"mode": "noise"}} for k in keys},
        "tasks": task_rows(("pope", "mmmu"), found),
        "results": found,
        **circumstances("sweep"),
    }


def mean(value: float) -> dict[str, Any]:
    return {"mean": value, "low": value - 0.01, "high": value + 0.01, "n": 8}


def diagnosis(names: tuple[str, ...] = ("Qwen2.5-VL-7B", "sap-vision", HOSTILE)) -> dict[str, Any]:
    """A report of `diagnose`."""
    from lostattn.surgery.diagnosis.samples import MEASURES
    from lostattn.surgery.diagnosis.summary import verdict as verdicts

    models = {}
    for i, name in enumerate(names):
        modules = {
            m: {x: mean(0.06 + j * 0.3 + i * 0.01) for x in MEASURES}
            for j, m in enumerate(("attention", "feed_forward"))
        }
        layers = {
            m: {x: [mean(0.05 + j * 0.3 + 0.02 * (k % 5)) for k in range(28)] for x in MEASURES}
            for j, m in enumerate(("attention", "feed_forward"))
        }
        rope = {"rope": mean(0.05), "rope_layers": [None, *(mean(0.05) for _ in range(27))]}
        models[name] = {
            "patched": bool(i),
            "plan": None,
            "paths": {},
            "samples": 8,
            "modules": modules,
            "layers": layers,
            **rope,
        }
        models[name]["verdict"] = verdicts(models[name])
    settings = {"tokens": "all", "controls": False, "seed": 0}
    return {"data": "builtin", "questions": 8, "settings": settings, "versions": {"torch": "2.13.0"}, "models": models}


def demo() -> dict[str, Any]:
    """A report of `demo`."""
    rows = results(("digits",), NAMES[:6])
    kinds = {"choice": 0.9, "largest": 0.98, "presence": 0.93, "read": 0.95, "right": 1.0}
    found = [
        {
            "name": r["model"],
            "layers": "1-5",
            "heads": "12 of 24",
            "whole_groups": "3 of 12",
            "accuracy": r["accuracy"]["share"],
            "by_kind": kinds,
            "unparsed": 0,
            "versus_original": r.get("difference"),
            "verdict": r.get("verdict", ""),
            "agreement": r.get("agreement"),
            "paths": {"closed": 9, "plain": 1},
            "seconds": 3.0,
        }
        for r in rows
    ]
    layers = [
        {
            "name": name,
            "accuracy": r["accuracy"]["share"],
            "by_kind": kinds,
            "difference": r["difference"],
            "verdict": r["verdict"],
        }
        for name, r in zip(("layer 0", "layer 1", "layers 0-1", "layers 2-3"), rows[1:5], strict=True)
    ]
    names = (
        "efficient",
        "fitted",
        "paper's band",
        "first layers",
        "last layers",
        "token pruning",
        "random 0",
        "random 1",
    )
    plans = {
        "original_accuracy": rows[0]["accuracy"]["share"],
        "calibrated_on": "digits",
        "calibration_samples": 160,
        "rows": [
            {
                "plan": name,
                "kv_groups": 16 * share,
                "visual_kv_saved": share,
                "groups": [[0, 1]],
                "accuracy": rows[1 + i % 5]["accuracy"]["share"],
                "agreement": 0.9,
                "versus_original": rows[1 + i % 5]["difference"],
                "efficient_minus_this": rows[1 + i % 5]["difference"] if i else None,
            }
            for share in (0.25, 0.5, 0.75)
            for i, name in enumerate(names)
        ],
    }
    return {
        "headline": headline(layers, plans),
        "questions": 500,
        "seed": 0,
        "versions": {"torch": "2.13.0"},
        "hardware": "2 cores",
        "threads": 1,
        "parser": "the stripped answer has to be the expected word",
        "results": found,
        "layers": layers,
        "plans": plans,
    }
