"""What lmms-eval is given and what is read of what it leaves; lmms-eval itself is not needed."""

from __future__ import annotations

import importlib.util
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from lostattn.patches.errors import LostattnError
from lostattn.serving.evaluation import lmms
from lostattn.serving.tasks.task import Item
from lostattn.surgery.evaluation.via import split_tasks
from PIL import Image


def two_items() -> list[Item]:
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("L", (9, 9), 7)
    return [
        Item("a", "a", {}, ("first ", 1, " then ", 0, "?"), "B", images=(red, blue)),
        Item("b", "b", {}, (0, "Which?"), ("1", "one"), images=(red,)),
    ]


class Loader(yaml.SafeLoader):
    """Reads `!function module.name` as that text, as lmms-eval's own loader finds it."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def test_items_become_a_task_that_stands_alone(tmp_path: Path) -> None:
    name = lmms.write_task("mine", two_items(), tmp_path / "tasks", 9)
    place = tmp_path / "tasks" / name
    config = yaml.load((place / f"{name}.yaml").read_text(), Loader)
    assert config["task"] == name == "lostattn_mine" and config["generation_kwargs"]["max_new_tokens"] == 9
    assert (
        config["dataset_kwargs"]["data_files"]["test"] == str(place / "rows.jsonl") and config["test_split"] == "test"
    )
    source = (place / "functions.py").read_text()
    assert "lostattn." not in source, "lmms-eval may live where lostattn does not"
    spec = importlib.util.spec_from_file_location("functions", place / "functions.py")
    assert spec is not None and spec.loader is not None
    functions = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(functions)
    for key in ("doc_to_visual", "doc_to_text", "doc_to_messages", "process_results"):
        module, _, function = config[key].partition(".")
        assert module == "functions" and hasattr(functions, function)
    first, second = (json.loads(line) for line in (place / "rows.jsonl").read_text().splitlines())
    parts = functions.messages(first)[0]["content"]
    assert [p["type"] for p in parts] == ["text", "image", "text", "image", "text"]
    assert parts[1]["url"].size == (9, 9) and parts[3]["url"].size == (8, 8) and parts[1]["url"].mode == "RGB"
    assert functions.text(second) == "Which?" and len(functions.visual(second)) == 1
    assert functions.results(second, [" One. "]) == {"exact_match": 1.0} != functions.results(second, ["two"])


def test_command(tmp_path: Path) -> None:
    found = lmms.arguments(
        "http://h:1/v1", "m", ["pope", "x"], tmp_path, folder=None, limit=5, at_once=3, max_tokens=8, seed=2
    )
    given = dict(pairwise(found))
    server = dict(part.split("=", 1) for part in given["--model_args"].split(","))
    assert given["--model"] == "openai" and given["--tasks"] == "pope,x" and given["--limit"] == "5"
    assert server["base_url"] == "http://h:1/v1" and server["model_version"] == "m" and server["num_concurrent"] == "3"
    assert int(server["timeout"]) >= 600 and not any("key" in part for part in found)
    assert "--include_path" not in found and "max_new_tokens=8" in found and "--log_samples" in found
    with pytest.raises(LostattnError, match="no comma, blank or ="):
        lmms.arguments("http://h:1/v1", "a,b", ["pope"], tmp_path, folder=None, limit=None, at_once=1)


def samples(out: Path, rows: list[dict[str, Any]]) -> None:
    (out / "m").mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (out / "m" / "20260101_000000_samples_lostattn_mine.jsonl").write_text(text)
    results = {"results": {"lostattn_mine": {"exact_match,none": 0.5, "alias": "mine"}}}
    (out / "m" / "20260101_000000_results.json").write_text(json.dumps(results))


def test_results_and_responses_are_read(tmp_path: Path) -> None:
    with pytest.raises(LostattnError, match="left no results"):
        lmms.read_results(tmp_path)
    with pytest.raises(LostattnError, match="logged no samples"):
        lmms.read_samples(tmp_path, "lostattn_mine", two_items())
    samples(tmp_path, [{"doc_id": 1, "filtered_resps": ["one"]}, {"doc_id": 0, "resps": [["B"]]}])
    assert lmms.read_samples(tmp_path, "lostattn_mine", two_items()) == ["B", "one"]
    assert lmms.read_results(tmp_path) == {"lostattn_mine": {"exact_match,none": 0.5}}
    with pytest.raises(LostattnError, match="2 answers to 1 items"):
        lmms.read_samples(tmp_path, "lostattn_mine", two_items()[:1])


def test_failed_requests_are_no_answers(tmp_path: Path) -> None:
    failed = "[LMMS_EVAL_REQUEST_FAILED after 5 retries] Connection error."
    samples(tmp_path, [{"doc_id": 0, "filtered_resps": ["B"]}, {"doc_id": 1, "filtered_resps": [failed]}])
    with pytest.raises(LostattnError, match="1 requests failed, which lmms-eval counts as wrong"):
        lmms.read_samples(tmp_path, "lostattn_mine", two_items())


def test_a_failing_harness_is_told_with_its_last_line(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['OPENAI_API_KEY']); print('boom'); sys.exit(3)"
    with pytest.raises(LostattnError, match=r"exit code 3: boom"):
        lmms.run_lmms([sys.executable, "-c", code], tmp_path / "log", "secret")
    assert (tmp_path / "log").read_text().startswith("secret")


def test_a_missing_harness_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lmms, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LostattnError, match="pip install lmms-eval"):
        lmms.lmms_command()
    (tmp_path / "lmms-eval").write_text("#!/bin/sh\n")
    (tmp_path / "lmms-eval").chmod(0o755)
    assert lmms.lmms_command() == [str(tmp_path / "lmms-eval"), "eval"]


def test_tasks_with_data_are_ours_the_others_its_own() -> None:
    assert split_tasks(["pope", "digits"], []) == (["pope"], ["digits"])
    assert split_tasks(["pope"], ["./POPE"]) == ([], ["pope"])
    assert split_tasks(["pope", "mmmu_val"], ["pope=./POPE"]) == (["mmmu_val"], ["pope"])
