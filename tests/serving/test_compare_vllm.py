"""The whole of `lostattn compare` and `lostattn bench serve` with real servers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving.benchmark import bench
from lostattn.serving.benchmark.bench import bench_serve, open_servers
from lostattn.serving.benchmark.servers import Servers
from lostattn.serving.benchmark.settings import BenchSettings
from lostattn.surgery import patch_checkpoint
from lostattn.surgery.demo.demo import MODEL
from lostattn.surgery.evaluation import compare as comparing
from lostattn.surgery.evaluation.compare import CompareSettings, compare
from lostattn.surgery.evaluation.evaluate import EvalSettings, run_eval
from lostattn.surgery.evaluation.tasks import read_tasks
from lostattn.surgery.log_lines import lines_to

for module in ("pandas", "datasets"):  # vLLM's benchmark needs them
    pytest.importorskip(module)
pytestmark = [pytest.mark.vllm, pytest.mark.slow]
if not (find_spec("vllm") and find_spec("matplotlib")):
    pytest.skip("vLLM and matplotlib are needed", allow_module_level=True)
BENCH = BenchSettings(
    visual_tokens=(64, 256),
    concurrency=(1, 2),
    output_tokens=8,
    text_tokens=20,
    repeats=1,
    requests=2,
    options=("--enforce-eager", "--dtype", "float32", "--block-size", "32"),
    together=True,
)


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "whole"
    patch_checkpoint(MODEL, out, mode="uniform", layers="5-7", heads="all")
    return out


class Lasting(Servers):
    """Servers that outlive the command that started them."""

    def __exit__(self, *_: Any) -> None:
        self.note_memory()


@pytest.fixture(scope="module", autouse=True)
def servers() -> Iterator[list[Servers]]:
    """One pair of servers for all commands with the same options."""
    opened: list[Servers] = []

    def open_once(sides: Any, settings: BenchSettings, *rest: Any) -> Servers:
        if settings.options != BENCH.options:
            return open_servers(sides, settings, *rest)
        if not opened:
            opened.append(open_servers(sides, settings, *rest))
            opened[0].__class__ = Lasting
        return opened[0]

    with pytest.MonkeyPatch.context() as patch:
        for module in (bench, comparing):
            patch.setattr(module, "open_servers", open_once)
        yield opened
    for one in opened:
        one.stop()


def test_one_command_one_report(patched: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lostattn")
    asked = read_tasks(["digits"], limit=12, max_tokens=3, seed=3)
    settings = CompareSettings(bench=BENCH, concurrency=4, seed=3)
    report = compare(MODEL, [patched], asked, tmp_path, settings)
    base, sap = report["results"]
    assert base["accuracy"]["share"] >= 0.9 and sap["agreement"] >= 0.75 and base["unparsed"] == 0
    _is_what_eval_says(report, patched, asked, tmp_path / "eval")
    bench = report["bench"]
    kv = {(r["side"], r["visual"]): r for r in bench["kv"]}
    assert set(kv) == {(s, v) for s in ("model", "whole") for v in (64, 256)}
    block = bench["models"][0]["server"]["block_bytes"]
    for row in kv.values():
        if row["side"] == "model":
            assert 0 <= row["bytes"] - row["predicted_bytes"] < block, "whole blocks, and no more"
    assert kv["whole", 256]["bytes"] < kv["model", 256]["bytes"]
    loads = {(r["side"], r["visual"], r["concurrency"]) for r in bench["loads"]}
    assert len(loads) == 8 and all(
        r["output_tokens_per_s"] > 0 and r["input_tokens"] > r["visual"] for r in bench["loads"]
    )
    assert all((tmp_path / f"compare.{kind}").stat().st_size for kind in ("html", "md", "json"))
    again = compare(MODEL, [patched], asked, tmp_path, settings)
    for row in (*report["results"], *again["results"]):
        row.pop("seconds")
    assert again == report and sum(line.startswith("starting vLLM") for line in caplog.messages) == 2


def _is_what_eval_says(report: dict[str, Any], patched: Path, asked: Any, out: Path) -> None:
    """Through transformers the same answers are read, with the same accuracy, difference and intervals."""
    local = run_eval([str(MODEL), str(patched)], asked, out, EvalSettings(dtype="float32", seed=3))
    same = ("model", "n", "accuracy", "unparsed", "difference", "p", "gained", "lost", "agreement", "metrics")
    for ours, theirs in zip(report["results"], local["results"], strict=True):
        assert {k: ours.get(k) for k in same} == {k: theirs.get(k) for k in same}
        read = [
            [json.loads(line)["answer"] for line in path.read_text().splitlines()]
            for path in (o / "digits" / f"{ours['model']}.jsonl" for o in (out.parent, out))
        ]
        assert read[0] == read[1]


def test_bench_serve_goes_on_where_it_stopped(patched: Path, tmp_path: Path, servers: list[Servers]) -> None:
    settings = replace(BENCH, visual_tokens=(64,), concurrency=(2,), repeats=2)

    def stop_at_the_third(line: str) -> None:
        if line.startswith("3/4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), lines_to(stop_at_the_third):
        bench_serve(MODEL, [patched], tmp_path, settings)
    kept = (tmp_path / "bench-loads.jsonl").read_text().splitlines()
    assert len(kept) == 1 + 3
    said: list[str] = []
    with lines_to(said.append):
        report = bench_serve(MODEL, [patched], tmp_path, settings)
    assert len(servers) == 1 and len(servers[0].alive) == 2
    assert report["loads"][:2] == [json.loads(line) for line in kept[1:3]]
    sessions = [r["session"] for r in report["loads"]]
    assert sessions[0] == sessions[1] != sessions[2] == sessions[3], "the turn that was cut is measured anew as a whole"
    assert (tmp_path / "bench.md").exists() and any(line.startswith("2 of 4 loads") for line in said)


def test_a_server_that_cannot_start_is_one_sentence(patched: Path, tmp_path: Path) -> None:
    settings = replace(BENCH, options=("--no-such-option",))
    with pytest.raises(LostattnError, match="no-such-option"):
        bench_serve(MODEL, [patched], tmp_path, settings)
