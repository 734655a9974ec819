"""Made-up models, questions, answers and loads, for tests of compare, resuming and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lostattn.serving.evaluation.store import Reply
from lostattn.serving.tasks.discover import get_task
from lostattn.serving.tasks.row import Row
from lostattn.serving.tasks.task import Item
from lostattn.surgery.evaluation.tasks import Asked
from PIL import Image

NAMES = ("base", "sap", "noise")
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 512,
}


def make_folder(path: Path, heads: dict[str, list[int]] | None) -> Path:
    """A model folder with a config and nothing else: plain, or patched in these heads."""
    path.mkdir(parents=True)
    config: dict[str, Any] = {"model_type": "qwen2_5_vl", "image_token_id": 9, "dtype": "bfloat16", "text_config": TEXT}
    if heads is not None:
        plan = {
            "format": 1,
            "family": "qwen2_5_vl",
            "mode": "uniform",
            "preset": "paper",
            "scores": "raw",
            "queries": "all",
            "num_layers": 2,
            "num_heads": 4,
            "num_kv_heads": 2,
            "heads": heads,
        }
        config |= {"model_type": "sap_qwen2_5_vl", "sap": plan}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def make_folders(path: Path) -> list[Path]:
    """base, sap (a whole layer), noise (scattered heads)."""
    heads: list[dict[str, list[int]] | None] = [None, {"1": [0, 1, 2, 3]}, {"0": [0], "1": [2]}]
    return [make_folder(path / name, h) for name, h in zip(NAMES, heads, strict=True)]


def make_asked(count: int, data: str = "pairs.jsonl", max_tokens: int = 64) -> list[Asked]:
    """Yes-no, option and number questions in turn, every picture asked about twice; texts that HTML has to escape."""
    task, items = get_task("questions"), []
    for i in range(count):
        picture = Image.new("RGB", (28 * (1 + i // 2 % 3), 56), (40 * (i // 2) % 256, 90, 160))
        question, answer, options = (
            (f"Is <b>{i}</b> & co there?", "yes", []),
            ("Which?", "B", ["cat", "<script>alert(1)</script>"]),
            ("How many?", "7", []),
        )[i % 3]
        row = Row(i + 1, {"image": picture, "question": question, "answer": answer, "options": options})
        items.append(task.item(row))
    return [Asked(task, items, data, task.prompt_version(), max_tokens)]


def fake_reply(name: str, item: Item) -> Reply:
    """The original errs in every fifth row, the patched ones elsewhere; some answers cannot be read."""
    wrong = item.row % {"base": 5, "sap": 4, "noise": 3}[name] == 0
    text = ("hm" if item.row % 2 else "no 3 A") if wrong else str(item.gold)
    return Reply(text, "stop", "", f"prompt {item.row}", 20, 8, 2)


def spread(value: float) -> dict[str, float]:
    return {"median": value, "low": value * 0.9, "high": value * 1.15, "n": 3}


def bench_report() -> dict[str, Any]:
    """A benchmark of three models, two sizes and two concurrencies; the largest load has no steady decoding."""
    from lostattn.serving.benchmark.settings import BenchSettings
    from lostattn.serving.benchmark.summary import FIGURES

    summary, kv = [], []
    for visual in (256, 1024):
        for number, name in enumerate(NAMES):
            size = (visual + 160) * 1024 // (1 + number % 2 * 3)
            kv.append(
                {
                    "side": name,
                    "visual": visual,
                    "text": 160,
                    "blocks": size // 4096,
                    "bytes": size,
                    "fit": 2**24 // size,
                    "predicted_bytes": size,
                }
            )
        for at_once in (1, 8):
            for number, name in enumerate(NAMES):
                figures: dict[str, Any] = {f: spread(100 * at_once / visual * (1 + 0.3 * number)) for f in FIGURES}
                if (visual, at_once) == (1024, 8):
                    figures["decode_tokens_per_s"] = None
                ratios = {f: figures[f] and spread(1 + 0.3 * number) for f in FIGURES} if number else {}
                summary.append(
                    {
                        "side": name,
                        "visual": visual,
                        "concurrency": at_once,
                        "repeats": 3,
                        "figures": figures,
                        "ratios": ratios,
                        "predicted_decode_ratio": 1.4 if number else None,
                    }
                )
    plan = {"mode": "uniform", "layers": "1", "heads": "4 of 8", "whole_groups": "2 of 4"}
    server = {"max_concurrency": 4.5, "longest": 512, "peak_memory": 2**31, "dtype": "bfloat16"}
    return {
        "base": "base",
        "settings": BenchSettings().to_json(),
        "options": ["--x", "1"],
        "together": True,
        "models": [{"name": n, "folder": n, "plan": plan, "server": server} for n in NAMES],
        "kv": kv,
        "summary": summary,
        "loads": [],
        "versions": {"vllm": "0"},
        "hardware": "a machine",
    }
