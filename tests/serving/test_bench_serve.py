"""The serving benchmark without servers: order, loads, figures, what counts as measured."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from judged import make_folders
from lostattn.patches.errors import LostattnError
from lostattn.serving.benchmark import load as load_module
from lostattn.serving.benchmark.bench import choose_sizes, finished
from lostattn.serving.benchmark.bench_models import make_bench_model
from lostattn.serving.benchmark.decode import steady_decode
from lostattn.serving.benchmark.load import Generator
from lostattn.serving.benchmark.metrics import log_dtype, log_longest, read_pool
from lostattn.serving.benchmark.settings import (
    BenchSettings,
    longest_request,
    make_load,
    schedule,
    server_options,
)
from lostattn.serving.benchmark.sizes import FRAMES, Size, choose
from lostattn.serving.benchmark.summary import FIGURES, measured, predicted_kv, summarize
from lostattn.serving.sides import read_sides

SIZES = [Size(448, 448, 256), Size(896, 896, 1024)]


class Endpoint:
    url, name = "http://127.0.0.1:1/v1", "sap"


@pytest.mark.parametrize("together", [True, False])
def test_models_take_turns(together: bool) -> None:
    jobs = list(schedule(["a", "b", "c"], SIZES, [8, 1], 3, together))
    assert len({j.key for j in jobs}) == len(jobs) == 3 * 2 * 2 * 3
    for repeat in range(3):
        for size in SIZES:
            turn = [j.side for j in jobs if (j.repeat, j.size, j.concurrency) == (repeat, size, 8)]
            assert turn == (["a", "b", "c"] if repeat % 2 == 0 else ["c", "b", "a"])
    changes = sum(x.side != y.side for x, y in zip(jobs, jobs[1:], strict=False))
    assert changes == (27 if together else 6)  # one by one: a server is started as rarely as the order allows


def test_all_models_get_the_same_load_and_no_two_loads_share_pictures() -> None:
    jobs = list(schedule(["a", "b"], SIZES, [1, 8], 3, True))
    seeds: dict[str, set[int]] = {"a": set(), "b": set()}
    for job in jobs:
        seeds[job.side].add(make_load(job, BenchSettings()).seed)
    assert seeds["a"] == seeds["b"] and len(seeds["a"]) == 2 * 2 * 3
    assert make_load(jobs[0], BenchSettings(seed=1)).seed not in seeds["a"]


def test_a_load_in_the_benchmarks_words() -> None:
    job = next(schedule(["a"], [Size(28, 56, 2)], [8], 1, True))
    words = make_load(job, BenchSettings(output_tokens=5)).arguments(Endpoint(), Path("tok"))
    given = dict(zip(words[::2], words[1::2], strict=False))
    assert given["--random-mm-bucket-config"] == "{(56, 28, 1): 1.0}"  # height first
    assert (given["--num-prompts"], given["--max-concurrency"], given["--num-warmups"]) == ("16", "8", "8")
    few = make_load(job, BenchSettings(warmups=0)).arguments(Endpoint(), Path("tok"))
    assert few[few.index("--num-warmups") + 1] == "0"
    assert (
        given["--base-url"] == "http://127.0.0.1:1" and given["--random-output-len"] == "5" and "--ignore-eos" in words
    )


def test_a_load_of_videos() -> None:
    job = next(schedule(["a"], [Size(28, 56, 4, FRAMES)], [8], 1, True))
    words = make_load(job, BenchSettings(videos=True)).arguments(Endpoint(), Path("tok"))
    given = dict(zip(words[::2], words[1::2], strict=False))
    assert given["--random-mm-bucket-config"] == "{(56, 28, 4): 1.0}"
    assert given["--random-mm-limit-mm-per-prompt"] == '{"image": 0, "video": 1}' in server_options(1, 8, [], True)
    with pytest.raises(LostattnError, match="say how many visual tokens"):
        choose_sizes(SimpleNamespace(longest=None), BenchSettings(videos=True))  # type: ignore[arg-type]

    def qwen(sizes: Sequence[tuple[int, int]]) -> list[int]:
        return [2 * max(1, round(w / 28)) * max(1, round(h / 28)) for w, h in sizes]

    assert choose(qwen, [8192], FRAMES) == [Size(1792, 1792, 8192, FRAMES)]
    with pytest.raises(LostattnError, match="of one video: the nearest is 576"):
        choose(lambda sizes: [576] * len(sizes), [1024], FRAMES)


@pytest.mark.parametrize(
    "wrong",
    [{"concurrency": ()}, {"concurrency": (0,)}, {"output_tokens": 1}, {"kv_budget": 5}, {"visual_tokens": (0,)}],
)
def test_settings_that_measure_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(LostattnError):
        BenchSettings(**wrong)


def test_server_options() -> None:
    assert longest_request(SIZES, BenchSettings()) == 1536
    own = server_options(7 * 2**20, 1536, ["--dtype", "float32"])
    assert own[-4:] == ["--max-model-len", "1536", "--dtype", "float32"] and "--no-enable-prefix-caching" in own
    assert server_options(1, 1536, ["--max-model-len=99"])[-1] == "--max-model-len=99"
    assert "1536" not in server_options(1, 1536, ["--max-model-len=99"])


def test_an_interrupted_turn_is_measured_anew() -> None:
    jobs = list(schedule(["a", "b"], SIZES[:1], [1], 2, True))
    rows = [{"side": j.side, "visual": j.size.visual, "concurrency": 1, "repeat": j.repeat} for j in jobs]
    assert finished(jobs, rows, True) == {j.key for j in jobs} and finished(jobs, [], True) == set()
    assert finished(jobs, rows[:3], True) == {j.key for j in jobs[:2]}
    assert finished(jobs, rows[:3], False) == {j.key for j in jobs[:3]}


def test_sizes() -> None:
    def qwen(sizes: Sequence[tuple[int, int]]) -> list[int]:
        return [max(1, round(w / 28)) * max(1, round(h / 28)) for w, h in sizes]

    assert choose(qwen, [1024, 256, 96]) == [Size(224, 336, 96), Size(448, 448, 256), Size(896, 896, 1024)]
    assert [s.visual for s in choose(lambda sizes: [576] * len(sizes), [576, 580])] == [576]
    with pytest.raises(LostattnError, match="makes no 1024 visual tokens .* nearest is 576"):
        choose(lambda sizes: [576] * len(sizes), [1024])


def test_steady_decoding_by_hand() -> None:
    """Two at once; the second's prefill ends at 3, the first ends at 6: 3 seconds with 3 + 3 tokens after second 3."""
    found = steady_decode([0, 0], [1, 3], [[1] * 5, [1] * 5], 2)
    assert found is not None and (found.seconds, found.tokens, found.tokens_per_s) == (3, 6, 2)
    assert steady_decode([0, 10], [1, 1], [[1] * 5, [1] * 5], 2) is None  # never two at once
    alone = steady_decode([0, 10], [1, 1], [[0.5] * 4, [0.5] * 4], 1)
    assert alone is not None and alone.tokens_per_s == pytest.approx(2)


def test_steady_decoding_leaves_prefill_out() -> None:
    """Whatever the prefill takes, the rate is that of the gaps."""
    draw = random.Random(0)
    starts, ttfts = [0.0] * 4, [draw.uniform(1, 30) for _ in range(4)]
    found = steady_decode(starts, ttfts, [[0.25] * 400] * 4, 4)
    assert found is not None and found.tokens_per_s == pytest.approx(16, rel=0.02)


METRICS = """vllm:cache_config_info{block_size="128",engine="0",kv_cache_max_concurrency="10.65625",\
kv_cache_memory_bytes="67108864",num_gpu_blocks="341"} 1.0
"""


def test_metrics_of_a_server() -> None:
    pool = read_pool(METRICS)
    assert (pool.blocks, pool.block_bytes, pool.max_concurrency) == (341, 128 * 6 * 2 * 2 * 32 * 2, 10.65625)

    with pytest.raises(LostattnError, match="size of the KV cache"):
        read_pool(METRICS.replace("67108864", "None"))
    log = "config: model='x', dtype=torch.bfloat16, max_seq_len=4096, more"
    assert (log_dtype(log), log_longest(log), log_dtype(""), log_longest("")) == ("bfloat16", 4096, None, None)


def row(side: str, repeat: int, value: float | None) -> dict[str, Any]:
    return {"side": side, "visual": 256, "concurrency": 1, "repeat": repeat} | dict.fromkeys(FIGURES, value)


def test_ratios_pair_within_repeats() -> None:
    """A machine that gets slower leaves no trace in ratios."""
    rows = [row("base", r, 100 / (r + 1)) for r in range(3)] + [row("sap", r, 150 / (r + 1)) for r in range(3)]
    base, sap = summarize(rows, "base")
    assert base["ratios"] == {} and base["figures"]["ttft_ms"] == {"median": 50, "low": 100 / 3, "high": 100, "n": 3}
    assert sap["ratios"]["output_tokens_per_s"] == {"median": 1.5, "low": 1.5, "high": 1.5, "n": 3}
    base, sap = summarize([row("base", 0, None), row("sap", 0, 3.0)], "base")
    assert base["figures"]["ttft_ms"] is None and sap["ratios"]["ttft_ms"] is None


def test_figures_of_a_load() -> None:
    raw = {
        "completed": 2,
        "duration": 9.0,
        "input_lens": [300, 310],
        "output_throughput": 4.0,
        "request_throughput": 0.5,
        "start_times": [0, 10],
        "ttfts": [1, 1],
        "itls": [[0.5] * 4] * 2,
    } | {f"{p}_{f}_ms": 1.0 for p in ("median", "p99") for f in ("ttft", "tpot", "itl")}
    found = measured(raw, 1)
    assert found["decode_tokens_per_s"] == pytest.approx(2) and found["input_tokens"] == 310
    assert measured(raw, 2)["decode_tokens_per_s"] is None


def test_prediction_in_the_servers_dtype(tmp_path: Path) -> None:
    base, sap, _ = read_sides((folders := make_folders(tmp_path))[0], folders[1:])
    assert predicted_kv(base, "float32", 10, 100) == 2 * predicted_kv(base, "bfloat16", 10, 100)
    assert predicted_kv(sap, None, 10, 100) == (4 * 110 - 2 * 99) * 2 * 8 * 2


def test_a_generator_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "generator.py"
    monkeypatch.setattr(load_module, "SCRIPT", script)
    monkeypatch.setattr(load_module, "NEEDS", {})
    job = next(schedule(["a"], SIZES, [1], 1, True))
    load = make_load(job, BenchSettings(requests=2))
    for answer, sentence in (
        ({"error": "ValueError: no"}, r"benchmark failed \(ValueError: no\)"),
        ({"completed": 1, "errors": ["", "Traceback\nBoom: gone"]}, r"1 of 2 requests failed on sap \(Boom: gone\)"),
    ):
        script.write_text(f"input(); print({json.dumps(answer)!r}, flush=True); input()")
        with Generator(tmp_path / "log") as generator, pytest.raises(LostattnError, match=sentence):
            generator.put(load, Endpoint(), tmp_path)
    script.write_text("raise SystemExit(1)")
    with Generator(tmp_path / "log") as generator, pytest.raises(LostattnError, match="ended|unexpectedly"):
        generator.put(load, Endpoint(), tmp_path)


def test_a_model_of_realistic_shape(tmp_path: Path) -> None:
    from lostattn.serving.byte_model import read_weight_bytes

    source = Path(load_module.__file__).parents[2] / "surgery" / "demo" / "model"
    folder = make_bench_model(source, tmp_path / "big", num_hidden_layers=4)
    config = json.loads((folder / "config.json").read_text())["text_config"]
    assert config["hidden_size"] // config["num_attention_heads"] == 128
    assert config["num_attention_heads"] >= 4 * config["num_key_value_heads"]
    weights = folder / "model.safetensors"
    assert 0 < read_weight_bytes(folder, 2) < weights.stat().st_size
    assert weights.stat().st_blocks * 512 < 2**20, "the zeros take no room"
    with pytest.raises(LostattnError, match="exists"):
        make_bench_model(source, folder)
    with pytest.raises(LostattnError, match="128 each"):
        make_bench_model(source, tmp_path / "odd", hidden_size=768)
