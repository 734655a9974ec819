"""Predictions for GPUs against numbers worked out by hand, counting block by block, and what must hold for every model."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_configs import PAPER
from hypothesis import given
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.patches.plan import Band, Plan
from lostattn.serving.gpus import GPUS, get_gpu
from lostattn.serving.model_size import read_size
from lostattn.serving.roofline import (
    Assumptions,
    Deployment,
    Request,
    _prefill_attention,
    compare,
    decode_step,
    fitting,
    prefill,
    rank_block_bytes,
    rank_kv_bytes,
)
from lostattn.serving.shape import model_shape

CONFIG = PAPER["Qwen2.5-VL-7B"]
SHAPE = model_shape(CONFIG)
SIZE = read_size(CONFIG, SHAPE)
PEAK = Assumptions(bandwidth_share=1, matmul_share=1, attention_share=1, kernel=0, launch=0, all_reduce=0)


def on(gpu: str = "h100", ranks: int = 1, assumed: Assumptions = PEAK, weights: float = 15e9) -> Deployment:
    return Deployment(get_gpu(gpu), SHAPE, SIZE, weights, weights, ranks, assumed)


def plan_of(heads: dict[int, tuple[int, ...]], queries: str = "all", **changes: Any) -> Plan:
    return Plan(
        "qwen2_5_vl", "uniform", "paper", changes.pop("scores", "raw"), queries, 28, 28, 4, heads=heads, **changes
    )


ALL = plan_of(dict.fromkeys(range(28), tuple(range(28))))
SOME = plan_of({layer: tuple(range(0, 28, 2)) if layer % 2 else tuple(range(14)) for layer in range(3, 28)})
KINDS = {
    "all": ALL,
    "some": SOME,
    "after": replace(ALL, queries="after_image"),
    "band": plan_of({3: ()}, band=Band(0.2, 0.8)),
    "blend": replace(ALL, blend=0.5),
}


def test_the_weights_of_qwen_7b() -> None:
    """By hand: attention 2 x 3584^2 + 2 x 3584 x 512 + biases, MLP 3 x 3584 x 18944, two norms; embedding 152064 x 3584."""
    layer = 2 * 3584**2 + 2 * 3584 * 512 + 3584 + 2 * 512 + 3 * 3584 * 18944 + 2 * 3584
    assert SIZE.decoder == 28 * layer + 3584
    assert SIZE.head == SIZE.embedding == 152064 * 3584 and SIZE.patches == 4
    assert 0.67e9 < SIZE.vision < 0.69e9


@pytest.mark.parametrize("name", PAPER)
def test_sizes_of_the_papers_models(name: str) -> None:
    size = read_size(PAPER[name], model_shape(PAPER[name]))
    billions = {"3B": 3.75, "7B": 8.29, "32B": 33.45, "6B": 6.7}
    known = next((b for part, b in billions.items() if name.endswith(part) and "Qwen" in name), None)
    assert known is None or size.total / 1e9 == pytest.approx(known, rel=0.01)
    assert size.total == size.decoder + size.head + size.embedding + size.vision
    assert size.hidden > 1000 and size.patches in (1, 4)


def test_a_decode_step_by_hand() -> None:
    """15 GB of weights, 28 x 4 x 2 x 128 numbers of 2 bytes (56 KiB) a token, 3.35 TB/s: about 5 and 7 ms."""
    request = Request(32, 4096, 96)
    assert rank_kv_bytes(on(), None, request) == 4224 * 56 * 1024
    for requests, ms in ((8, 5.056), (32, 6.791)):
        wanted = (15e9 + requests * 4224 * 57344) / 3.35e12
        assert decode_step(on(), None, request, requests) == pytest.approx(wanted, rel=1e-9)
        assert 1e3 * wanted == pytest.approx(ms, abs=1e-3)
    text = (15e9 + 32 * 129 * 57344) / 3.35e12  # all groups whole: text and one summary
    assert decode_step(on(), ALL, request, 32) == pytest.approx(text, rel=1e-9)


def test_many_rows_are_bound_by_flops() -> None:
    few, many = (decode_step(on(), ALL, Request(1, 1, 1), n) for n in (1, 4096))
    assert few == pytest.approx(15e9 / 3.35e12, rel=1e-3)
    assert many == pytest.approx(2 * (SIZE.decoder + SIZE.head) * 4096 / 989e12, rel=0.06)


def test_prefill_by_hand() -> None:
    """Matrices: 2 FLOPs a weight and token; tower: 4 patches a visual token; attention: 4 x 128 a pair, head and layer."""
    request, deployment = Request(32, 4096, 96), on()
    pairs = 28 * 28 * 4224 * 4225 / 2
    flops = 2 * SIZE.decoder * 4224 + 2 * SIZE.vision * 4096 * 4 + 4 * 128 * pairs
    head = 15e9 * SIZE.head / (SIZE.decoder + SIZE.head) / 3.35e12  # one row: bound by its bytes
    assert prefill(deployment, None, request, 1) == pytest.approx(flops / 989e12 + head, rel=1e-9)
    saved = 28 * 28 * (4096 * 4097 / 2 + 96 * 4096) * 512 - 28 * 4 * 4096 * 256
    assert prefill(deployment, ALL, request, 1) == pytest.approx((flops - saved) / 989e12 + head, rel=1e-9)


def test_kernels_and_launches() -> None:
    slow = replace(PEAK, kernel=1e-3, launch=1e-2)
    request = Request(32, 100, 96)
    bare = decode_step(on(), None, request, 1)
    assert decode_step(on(assumed=slow), None, request, 1) == pytest.approx(bare + 28 * 11 * 1e-3)
    some = plan_of({0: tuple(range(28)), 5: (1,), 6: (1, 8)})  # text of 1 and of 2 KV heads is read twice
    wanted = decode_step(on(), some, request, 1) + (28 * 11 + 2 * 2) * 1e-3
    assert decode_step(on(assumed=slow), some, request, 1) == pytest.approx(wanted)
    summaries = 28 * 4 * 228 - 4 * 99
    assert decode_step(on(), some, request, 1) == pytest.approx((15e9 + (summaries + 3 * 128) * 512) / 3.35e12)


def test_launches_of_prefill() -> None:
    """11 a layer and step, 4 more in a patched layer; a long prompt comes in several steps."""
    host = replace(PEAK, launch=1.0)
    some = plan_of({0: tuple(range(28)), 5: (1,)})
    assert prefill(on(assumed=host), None, Request(8, 8, 8), 9) == 28 * 11
    assert prefill(on(assumed=host), some, Request(8, 8, 8), 9) == 28 * 11 + 2 * 4
    assert prefill(on(assumed=host), some, Request(8192, 8192, 8), 1) == 3 * (28 * 11 + 2 * 4)


@given(st.integers(0, 9), st.integers(1, 9), st.integers(0, 9), st.sampled_from([1, 2]))
def test_attention_of_prefill_equals_counting(before: int, visual: int, after: int, ranks: int) -> None:
    """Pair by pair: heads of whole groups meet text keys and a running sum, scattered ones text keys besides all."""
    plan = plan_of({2: (*range(7), 8, 20), 5: tuple(range(28))})
    image, tokens = range(before, before + visual), before + visual + after
    wanted = 0
    for layer in range(28):
        heads = set(plan.heads.get(layer, ()))
        # with two ranks layer 2 keeps no group whole, as the second rank has none
        whole = {g for g in range(4) if heads.issuperset(range(7 * g, 7 * g + 7)) and (ranks == 1 or layer == 5)}
        everything = sum(512 * (row + 1) for row in range(tokens))
        text = sum(512 for row in range(tokens) for key in range(row + 1) if key not in image)
        for head in range(28):
            wanted += text if head // 7 in whole else everything + (text if head in heads else 0)
        wanted += len(whole) * visual * 256
    assert _prefill_attention(on(ranks=ranks), plan, Request(before, visual, after)) == wanted


def test_tensor_parallelism_shares_out_all_but_what_is_copied() -> None:
    request = Request(32, 4096, 96)
    one, two, eight = (rank_kv_bytes(on(ranks=n), None, request) for n in (1, 2, 4))
    assert one == 2 * two == 4 * eight
    copied = replace(SHAPE, heads=32, kv_heads=4)
    wide = Deployment(get_gpu("h100"), copied, SIZE, 15e9, 15e9, 8, PEAK)
    assert rank_kv_bytes(wide, None, request) == 4224 * 28 * 512
    sent = 2 * 28 * 32 * 3584 * 2 * 2 * 1 / 2 / 450e9  # twice a layer, 32 rows, ring of two
    assert decode_step(on(ranks=2), None, request, 32) == pytest.approx(
        decode_step(on(), None, request, 32) / 2 + sent, rel=1e-9
    )


@pytest.mark.parametrize("ranks", [3, 5, 8])
def test_heads_that_cannot_be_shared_out(ranks: int) -> None:
    with pytest.raises(LostattnError, match=f"{ranks} GPUs"):
        on(ranks=ranks)


@given(st.integers(0, 200), st.integers(1, 400), st.integers(1, 200), st.sampled_from([16, 32, 128]))
def test_blocks_are_counted_as_the_engine_counts_them(before: int, visual: int, after: int, block: int) -> None:
    spans = pytest.importorskip("lostattn.serving.engine.cache.spans")
    request, deployment = Request(before, visual, after), on(assumed=replace(PEAK, block=block))
    every = -(-request.tokens // block)
    kept = every - sum(spans.holes([(before, before + visual)], block, 0, every))
    bytes_of = 28 * 4 * block * 2 * 128 * 2
    assert rank_block_bytes(deployment, ALL, request) == kept * bytes_of
    assert rank_block_bytes(deployment, None, request) == every * bytes_of


def test_requests_that_fit_by_hand() -> None:
    """92 % of 80 GB, less 3 and 15: 55.6 GB for 264 blocks of 16 x 56 KiB each."""
    assert fitting(on(), None, Request(32, 4096, 96)) == int(55.6e9 // (264 * 16 * 57344)) == 229
    assert fitting(on(), ALL, Request(32, 4096, 96)) == int(55.6e9 // (10 * 16 * 57344))
    assert fitting(on(weights=100e9), ALL, Request(1, 1, 1)) == 0


TOKENS = st.integers(1, 20_000)
COUNTS = st.integers(1, 300)


@given(st.sampled_from(sorted(GPUS)), TOKENS, TOKENS, COUNTS, st.sampled_from([1, 2, 4]))
def test_no_plan_changes_nothing(gpu: str, text: int, visual: int, requests: int, ranks: int) -> None:
    deployment = on(gpu, ranks, Assumptions())
    for inert in (plan_of({}), replace(ALL, blend=0.0)):
        (row,) = compare(deployment, inert, Request(text, visual, text), (requests,))
        assert row.original == row.patched and row.decode_ratio == row.prefill_ratio == 1


@given(st.sampled_from([None, *KINDS]), TOKENS, TOKENS, COUNTS, st.integers(1, 500), st.integers(0, 2))
def test_more_is_never_faster(kind: str | None, text: int, visual: int, requests: int, more: int, what: int) -> None:
    plan, deployment = None if kind is None else KINDS[kind], on(assumed=Assumptions())
    small, large = [text, visual, requests], [text, visual, requests]
    large[what] += more
    times = [
        (decode_step(deployment, plan, Request(9, v, t), n), prefill(deployment, plan, Request(9, v, t), n))
        for t, v, n in (small, large)
    ]
    assert all(b >= a * (1 - 1e-12) for a, b in zip(*times, strict=True))


@given(st.sampled_from(sorted(KINDS)), TOKENS, TOKENS, COUNTS)
def test_without_launches_only_scattered_heads_cost(kind: str, text: int, visual: int, requests: int) -> None:
    request, deployment = Request(text, visual, text), on()
    (row,) = compare(deployment, KINDS[kind], request, (requests,))
    if kind in ("all", "band", "blend"):
        assert row.decode_ratio >= 1 - 1e-12 and row.prefill_ratio >= 1 - 1e-12
    if kind in ("band", "blend"):
        assert row.original == row.patched


@given(st.sampled_from(sorted(GPUS)), st.sampled_from([None, *KINDS]), TOKENS, COUNTS)
def test_figures_are_numbers(gpu: str, kind: str | None, tokens: int, requests: int) -> None:
    plan = plan_of({}) if kind is None else KINDS[kind]
    (row,) = compare(on(gpu, assumed=Assumptions()), plan, Request(tokens, tokens, tokens), (requests,))
    for served in (row.original, row.patched):
        assert all(math.isfinite(x) and x > 0 for x in (served.prefill_ms, served.step_ms, served.tokens_per_s))


def test_scores_that_need_all_keys_save_no_memory() -> None:
    """`prob_rescaled` takes the mean over all keys, so the engine keeps them."""
    plan = plan_of(ALL.heads, scores="prob_rescaled")
    assert rank_kv_bytes(on(), plan, Request(1, 100, 1)) == rank_kv_bytes(on(), None, Request(1, 100, 1))


@given(st.dictionaries(st.integers(0, 27), st.sets(st.integers(0, 27), min_size=1)), st.sampled_from([1, 2, 4, 7, 14]))
def test_groups_of_ranks_are_those_of_the_engine(heads: dict[int, set[int]], ranks: int) -> None:
    roles = pytest.importorskip("lostattn.serving.engine.attention.roles")
    from lostattn.serving.byte_model import whole_groups

    plan = plan_of({layer: tuple(sorted(found)) for layer, found in sorted(heads.items())})
    shards = [roles.Shard(rank, 28 // ranks, max(4 // ranks, 1)) for rank in range(ranks)]
    for layer in plan.layers:
        count = whole_groups(plan, layer, ranks)
        assert all(len(roles.local_role(plan, layer, shard, ranks).whole) == count for shard in shards)


def test_gpus_by_name() -> None:
    assert get_gpu("H100") is GPUS["h100"]
    for name, gpu in GPUS.items():
        assert gpu.name == name and gpu.source.startswith("https://") and 100 < gpu.flops / gpu.bandwidth < 500
    with pytest.raises(LostattnError, match="choose one of a10, a100, .*l40s") as caught:
        get_gpu("h10O")
    assert "did you mean h100" in str(caught.value) and "\n" not in str(caught.value)


def test_the_page_shows_the_gpus_as_they_are() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
    for gpu in GPUS.values():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{gpu.name}` |")]
        numbers = [float(x) for x in re.findall(r"\| ([\d.]+) [GT]", line)]
        assert numbers == [gpu.memory / 1e9, gpu.bandwidth / 1e12, gpu.flops / 1e12, gpu.link / 1e9]
