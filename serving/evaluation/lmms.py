"""lmms-eval as the one who asks and scores: its command line, and our items as a task of its own kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from ...patches.errors import LostattnError
from ..disk import disk_errors
from ..server import STARTUP
from ..tasks.task import Item

PREFIX = "lostattn_"
TIMEOUT = 600  # seconds for one answer; lmms-eval's own 10 turn a slow server's answers into wrong ones
FAILED = "[LMMS_EVAL_REQUEST_FAILED"
# goes to lmms-eval, whose environment may have no lostattn; its loader calls these by their names
FUNCTIONS = '''"""A local task of lostattn for lmms-eval: rows hold the prompt's parts, picture files and the right answer."""

from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent


def visual(doc):
    return [Image.open(HERE / name).convert("RGB") for name in doc["pictures"]]


def text(doc, lmms_eval_specific_kwargs=None):
    return "".join(part["text"] for part in doc["parts"] if part["type"] == "text")


def messages(doc, lmms_eval_specific_kwargs=None):
    pictures = visual(doc)
    parts = [
        {"type": "image", "url": pictures[part["picture"]]} if part["type"] == "image" else {"type": "text", "text": part["text"]}
        for part in doc["parts"]
    ]
    return [{"role": "user", "content": parts}]


def results(doc, found):
    said = str(found[0]).strip().rstrip(".").lower()
    return {"exact_match": float(said in [gold.strip().lower() for gold in doc["gold"]])}
'''


def lmms_command() -> list[str]:
    """How lmms-eval is started: from this Python, else its command on the path. LostattnError if it is not there."""
    if find_spec("lmms_eval") is not None:
        return [sys.executable, "-m", "lmms_eval", "eval"]
    if (result := shutil.which("lmms-eval")) is not None:
        return [result, "eval"]
    raise LostattnError("lmms-eval is not installed: pip install lmms-eval, here or where its command lies on the path")


def arguments(
    url: str,
    model: str,
    tasks: Sequence[str],
    out: Path,
    *,
    folder: Path | None,
    limit: int | None,
    at_once: int,
    max_tokens: int | None = None,
    seed: int = 0,
) -> list[str]:
    """Arguments of `lmms-eval eval` for a model of an OpenAI-style server.

    Args:
        tasks: names as lmms-eval knows them; those of `write_task` lie in `folder`.
    """
    if any(c in model + url for c in ",= "):
        raise LostattnError(f"lmms-eval cannot be given '{model}' at {url}: they may hold no comma, blank or =")
    server = {
        "model_version": model,
        "base_url": url,
        "timeout": TIMEOUT,
        "max_retries": 5,
        "num_concurrent": at_once,
        "httpx_trust_env": False,
    }
    results = ["--model", "openai", "--model_args", ",".join(f"{k}={v}" for k, v in server.items())]
    results += ["--tasks", ",".join(tasks), "--batch_size", "1", "--output_path", str(out), "--log_samples"]
    results += ["--seed", str(seed)]
    if folder is not None:
        results += ["--include_path", str(folder)]
    if limit is not None:
        results += ["--limit", str(limit)]
    if max_tokens is not None:
        results += ["--gen_kwargs", f"max_new_tokens={max_tokens}"]
    return results


def write_task(name: str, items: Sequence[Item], folder: Path, max_tokens: int) -> str:
    """Write items as a local task of lmms-eval; its name there. Its score is exact match; rows keep our ids.

    Raises:
        LostattnError: a picture that cannot be read, naming the row, or the disk refuses.
    """
    place = folder / f"{PREFIX}{name}"
    with disk_errors(f"cannot write {place}"):
        (place / "pictures").mkdir(parents=True, exist_ok=True)
        lines = []
        for number, item in enumerate(items):
            names = []
            for i, picture in enumerate(item.pictures()):
                names.append(f"pictures/{number}-{i}.png")
                picture.save(place / names[-1])
            lines.append(json.dumps(_row(item, names)) + "\n")
        (place / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
        (place / "functions.py").write_text(FUNCTIONS, encoding="utf-8")
        (place / f"{PREFIX}{name}.yaml").write_text(_yaml(name, place / "rows.jsonl", max_tokens), encoding="utf-8")
    return f"{PREFIX}{name}"


def _row(item: Item, names: Sequence[str]) -> dict[str, Any]:
    parts = [
        {"type": "image", "picture": p, "text": ""}
        if isinstance(p, int)
        else {"type": "text", "picture": -1, "text": p}
        for p in item.prompt
    ]
    gold = [item.gold] if isinstance(item.gold, str) else list(item.gold)
    return {"id": item.id, "parts": parts, "pictures": list(names), "gold": gold}


def _yaml(name: str, rows: Path, max_tokens: int) -> str:
    plain = {
        "task": f"{PREFIX}{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows.resolve())}},
        "test_split": "test",
        "output_type": "generate_until",
        "generation_kwargs": {"max_new_tokens": max_tokens, "temperature": 0, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": [{"version": 1}],
    }
    tags = {
        "doc_to_visual": "visual",
        "doc_to_text": "text",
        "doc_to_messages": "messages",
        "process_results": "results",
    }
    text = str(yaml.safe_dump(plain, sort_keys=False)) + 'doc_to_target: "gold"\n'
    return text + "".join(f"{key}: !function functions.{function}\n" for key, function in tags.items())


def run_lmms(command: Sequence[str], log: Path, api_key: str | None = None) -> None:
    """Run it, its output in a log; the key goes by the environment, where other users do not see it.

    Raises:
        LostattnError: it fails, with its last line.
    """
    paths = os.pathsep.join([str(STARTUP), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": paths, "OPENAI_API_KEY": api_key or "none"}
    with disk_errors(f"cannot write {log}"), log.open("wb") as file:
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = [x for x in log.read_text(encoding="utf-8", errors="replace").splitlines() if x.strip()]
        raise LostattnError(
            f"lmms-eval ended with exit code {done.returncode}: {lines[-1][:300] if lines else ''} (log: {log})"
        )


def read_results(out: Path) -> dict[str, Any]:
    """The newest results of lmms-eval below a folder: task -> metric -> value. LostattnError if there are none."""
    results = sorted(out.rglob("*results.json"), key=lambda p: p.stat().st_mtime)
    if not results:
        raise LostattnError(f"lmms-eval left no results in {out}: see its log")
    raw = json.loads(results[-1].read_text(encoding="utf-8"))
    return {task: {k: v for k, v in row.items() if isinstance(v, int | float)} for task, row in raw["results"].items()}


def read_samples(out: Path, task: str, items: Sequence[Item]) -> list[str]:
    """The responses of a local task's newest log, in the items' order.

    Raises:
        LostattnError: no log, other items in it, or requests that failed.
    """
    results = sorted(out.rglob(f"*samples_{task}.jsonl"), key=lambda p: p.stat().st_mtime)
    if not results:
        raise LostattnError(f"lmms-eval logged no samples of {task} in {out}: see its log")
    rows = [json.loads(line) for line in results[-1].read_text(encoding="utf-8").splitlines() if line.strip()]
    said = {int(row["doc_id"]): _response(row) for row in rows}
    if sorted(said) != list(range(len(items))):
        raise LostattnError(f"lmms-eval logged {len(said)} answers to {len(items)} items of {task}: see its log")
    if failed := sum(text.startswith(FAILED) for text in said.values()):
        raise LostattnError(
            f"{failed} requests failed, which lmms-eval counts as wrong answers: see that the server is up, and run it again"
        )
    return [said[i] for i in range(len(items))]


def _response(row: Mapping[str, Any]) -> str:
    result = row.get("filtered_resps") or row.get("resps") or ""
    while isinstance(result, list):
        result = result[0] if result else ""
    return str(result)
