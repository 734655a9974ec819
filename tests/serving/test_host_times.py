"""Host time of decode steps: what the engine writes, what a benchmark reads of it, and reports with and without it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_reports as made
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lostattn.serving.benchmark.report import host_rows, markdown, page
from lostattn.serving.benchmark.summary import host_figures, summarize
from lostattn.serving.host_times import VARIABLE, HostTimes, host_times, written

ROWS = st.lists(
    st.tuples(st.sampled_from(["schedule", "metadata"]), st.floats(0.01, 99), st.integers(1, 3), st.integers(1, 3))
)


def write(path: Path, rows: list[tuple[str, float, int, int]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for what, ms, requests, tokens in rows:
            file.write(json.dumps({"what": what, "ms": ms, "requests": requests, "tokens": tokens}) + "\n")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=ROWS, rows=ROWS, batch=st.integers(1, 3))
def test_only_full_decode_steps_of_this_load_count(tmp_path: Path, before: Any, rows: Any, batch: int) -> None:
    record = tmp_path / "host.jsonl"
    record.unlink(missing_ok=True)
    write(record, before)
    start = written(record)
    write(record, rows)
    kept = {
        what: sorted(ms for w, ms, requests, tokens in rows if (w, requests, tokens) == (what, batch, batch))
        for what in ("schedule", "metadata")
    }
    found = host_times(record, start, batch)
    if not all(kept.values()):
        assert found is None
        return
    assert found is not None and found.steps == len(kept["metadata"])
    for what, value in (("schedule", found.schedule), ("metadata", found.metadata)):
        values = kept[what]
        middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
        assert value == pytest.approx(middle)


def test_nothing_written(tmp_path: Path) -> None:
    assert written(tmp_path / "none") == 0 and host_times(tmp_path / "none", 0, 1) is None
    assert set(host_figures(None)) == set(host_figures(HostTimes(1.0, 2.0, 3)))


def load(side: str, repeat: int, **more: Any) -> dict[str, Any]:
    row = {"side": side, "visual": 9, "concurrency": 2, "repeat": repeat}
    figures = ("output_tokens_per_s", "requests_per_s", "decode_tokens_per_s", "ttft_ms", "tpot_ms", "itl_ms")
    return row | dict.fromkeys(figures, 1.0) | more


def test_ratios_to_the_original_and_loads_of_older_runs() -> None:
    """The file of finished loads may come from a version that did not note host time."""
    rows = [load("base", 0, **host_figures(HostTimes(1.0, 0.2, 9))), load("base", 1)]
    rows += [load("sap", 0, **host_figures(HostTimes(1.5, 0.9, 9))), load("sap", 1)]
    base, sap = summarize(rows, "base")
    assert base["figures"]["host_ms"]["median"] == pytest.approx(1.2) and base["figures"]["host_ms"]["n"] == 1
    assert sap["ratios"]["host_ms"]["median"] == pytest.approx(2.0)
    assert sap["ratios"]["metadata_ms"]["median"] == pytest.approx(4.5)
    (_, old) = summarize([load("base", 0), load("sap", 0)], "base")
    assert old["figures"]["host_ms"] is None and old["ratios"]["host_ms"] is None


def test_reports_with_and_without_host_time() -> None:
    report = made.benchmark()
    old, new = markdown(report), page(report)
    assert host_rows(report) == [] and "schedule()" not in old + new
    for row in report["summary"]:
        for figure, value in (("schedule_ms", 1.0), ("metadata_ms", 0.5), ("host_ms", 1.5)):
            row["figures"][figure] = made.spread(value)
            if row["ratios"]:
                row["ratios"][figure] = made.spread(1.25)
    assert "| 1.5 ms, 1.25x [1.16, 1.33] |" in markdown(report)
    assert "Host time of a decode step" in page(report) and len(host_rows(report)) == len(report["summary"])


@pytest.fixture
def hooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stand-ins for vLLM's scheduler and runners, hooked."""
    pytest.importorskip("vllm")
    from lostattn.serving.engine import host_record

    class Scheduler:
        def schedule(self, throttle_prefills: bool = False) -> Any:
            return SimpleNamespace(
                num_scheduled_tokens=self.tokens, total_num_scheduled_tokens=sum(self.tokens.values())
            )

    class Runner:
        def _build_attention_metadata(
            self, num_tokens: int, num_reqs: int, max_query_len: int, for_cudagraph_capture: bool = False
        ) -> str:
            return "metadata"

    class State:
        def prepare_attn(self, input_batch: Any, mode: str, for_capture: bool = False) -> str:
            return mode

    for name, stand_in in (("Scheduler", Scheduler), ("GPUModelRunner", Runner), ("DefaultModelState", State)):
        monkeypatch.setattr(host_record, name, stand_in)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "record"))
    host_record.record_host_times()
    host_record.record_host_times()
    return Scheduler, Runner, State


def test_what_the_engine_writes(hooked: Any, tmp_path: Path) -> None:
    scheduler, runner, state = (cls() for cls in hooked)
    for tokens in ({"a": 1, "b": 1}, {}, {"a": 40}):
        scheduler.tokens = tokens
        assert scheduler.schedule().num_scheduled_tokens == tokens
    assert runner._build_attention_metadata(num_tokens=2, num_reqs=2, max_query_len=1) == "metadata"
    assert runner._build_attention_metadata(40, 1, 40) == "metadata"
    runner._build_attention_metadata(8, 8, 1, for_cudagraph_capture=True)
    batch = SimpleNamespace(num_reqs=2, num_tokens=2)
    assert state.prepare_attn(batch, "eager") == "eager"
    state.prepare_attn(batch, "full", for_capture=True)
    rows = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    assert [(r["what"], r["requests"], r["tokens"]) for r in rows] == [
        ("schedule", 2, 2),
        ("schedule", 1, 40),
        ("metadata", 2, 2),
        ("metadata", 1, 40),
        ("metadata", 2, 2),
    ]
    assert all(r["ms"] >= 0 for r in rows)


def test_nothing_is_done_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    from lostattn.serving.engine import host_record

    monkeypatch.delenv(VARIABLE, raising=False)
    plain = host_record.Scheduler.schedule
    host_record.record_host_times()
    assert host_record.Scheduler.schedule is plain
