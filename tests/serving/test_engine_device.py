"""What a decode step asks of the device and of the host: launches, torch calls, and requests that are looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("vllm")
triton = pytest.importorskip("triton")

from lostattn.patches.plan import Plan  # noqa: E402
from lostattn.serving.engine.attention import device  # noqa: E402
from lostattn.serving.engine.attention.state import Batch, PriorStore, SapState  # noqa: E402
from lostattn.serving.engine.cache.spans import RequestInfo  # noqa: E402
from lostattn.serving.engine.internals import AttentionCGSupport  # noqa: E402
from vllm.v1.attention.backend import CommonAttentionMetadata  # noqa: E402

pytestmark = pytest.mark.vllm

REQUESTS, HEADS, KV_HEADS, D, SIZE = 64, 8, 2, 64, 16
WAITS = ("_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero", "equal", "unique")


class Recorder(TorchDispatchMode):
    """Names of torch calls that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns):
            self.calls.append(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Recorder, list[str]]]:
    """Torch calls, and launches of kernels, which compute nothing here."""
    launches: list[str] = []
    from triton.runtime.jit import JITFunction

    monkeypatch.setattr(JITFunction, "run", lambda self, *_, **__: launches.append(self.__name__))
    with Recorder() as recorder:
        yield recorder, launches


class Native:
    """A backend's implementation whose kernel is one call."""

    def __init__(self, *arguments: Any) -> None:
        self.ran = 0

    def forward(self, layer: Any, q: Any, k: Any, v: Any, cache: Any, step: Any, out: torch.Tensor) -> None:
        self.ran += 1


class NativeBuilder:
    """Its metadata."""

    reorder_batch_threshold = 1
    support = AttentionCGSupport.ALWAYS

    def __init__(self, *arguments: Any) -> None: ...

    @classmethod
    def get_cudagraph_support(cls, *arguments: Any) -> Any:
        return cls.support

    def build(self, *arguments: Any) -> str:
        return "native"

    def build_for_cudagraph_capture(self, *arguments: Any) -> str:
        return "captured"


def impl(kind: Any, **more: Any) -> Any:
    patched = tuple(range(HEADS)) if kind is device.DeviceSummaryImpl else (0, 1, 6)
    arguments = {"native": Native, "state": SapState(REQUESTS, "cpu"), "plan": PLAN, "index": 0, "patched": patched}
    found = kind(HEADS, D, 0.1, KV_HEADS, None, None, "auto", **arguments, level=torch.zeros(HEADS), **more)
    found._pages = None
    return found


def builder(kind: Any, layers: dict[str, Any]) -> Any:
    config = SimpleNamespace(
        parallel_config=SimpleNamespace(pipeline_parallel_size=1),
        scheduler_config=SimpleNamespace(max_num_seqs=REQUESTS, max_num_batched_tokens=2048),
        compilation_config=SimpleNamespace(static_forward_context=layers),
        model_config=SimpleNamespace(hf_config=SimpleNamespace(sap=PLAN.to_json())),
    )
    spec = SimpleNamespace(block_size=SIZE, num_kv_heads=KV_HEADS)
    made = type(kind.__name__, (kind,), {"native_builder": NativeBuilder})
    return made(spec, list(layers), config, torch.device("cpu"))


PLAN = Plan("qwen2_5_vl", "uniform", "paper", "log", "all", 1, HEADS, KV_HEADS, {0: (0, 1, 6)})


def common(lengths: list[int]) -> Any:
    """vLLM's metadata of a decode step."""
    fields = {f.name for f in dataclasses.fields(CommonAttentionMetadata)}
    rows, starts = len(lengths), torch.arange(len(lengths) + 1, dtype=torch.int32)
    known = {
        "query_start_loc": starts,
        "query_start_loc_cpu": starts,
        "num_reqs": rows,
        "num_actual_tokens": rows,
        "seq_lens": torch.tensor(lengths, dtype=torch.int32),
        "max_query_len": 1,
        "max_seq_len": max(lengths),
        "seq_lens_cpu_upper_bound": torch.tensor(lengths, dtype=torch.int32),
        "block_table_tensor": torch.ones(rows, 64, dtype=torch.int32),
        "slot_mapping": torch.arange(rows) + SIZE,
    }
    return CommonAttentionMetadata(**{k: v for k, v in known.items() if k in fields})


def batch(asked: list[str]) -> Batch:
    def look_up(name: str) -> RequestInfo:
        asked.append(name)
        return RequestInfo(name, ((4, 200),) if int(name) % 4 else (), 300)

    return Batch([str(i) for i in range(REQUESTS)], look_up)


CASES = [
    (device.DeviceSummaryBuilder, device.DeviceSummaryImpl, {}, 0, ["write_kernel", "decode_kernel"]),
    (
        device.DeviceMixedBuilder,
        device.DeviceMixedImpl,
        {"store": PriorStore(), "layer_plan": None},
        1,
        ["write_kernel", "decode_kernel"],
    ),
]


@pytest.mark.parametrize(("make", "kind", "more", "native", "wanted"), CASES, ids=["summary", "mixed"])
def test_a_decode_step(
    make: Any, kind: Any, more: dict[str, Any], native: int, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most three calls a layer, none that waits for the device; metadata that looks at no request twice."""
    monkeypatch.setattr(device, "whole_sums", lambda *_: None)
    layer = SimpleNamespace(impl=(attention := impl(kind, **more)), kv_cache=torch.zeros(9, KV_HEADS, SIZE, 2 * D))
    monkeypatch.setattr(type(attention), "pages", lambda self, cache: self._known_pages)
    attention._known_pages = device.Pages(layer.kv_cache, False)
    made, asked = builder(make, {"layer": layer}), []
    assert made.get_cudagraph_support(None, None) == AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE
    q, k = torch.randn(REQUESTS, HEADS, D), torch.randn(REQUESTS, KV_HEADS, D)
    out = torch.zeros_like(q)
    with recorded(monkeypatch):  # buffers are made at the first step
        step = made.build(0, common([310] * REQUESTS), batch=batch(asked))
        attention.forward(layer, q, k, k, layer.kv_cache, step, out)
    assert len(asked) == REQUESTS
    after = common([311] * REQUESTS)
    with recorded(monkeypatch) as (recorder, launches):
        again = made.build(0, after, batch=batch(asked))
    assert launches == ["prepare_kernel"] and len(asked) == REQUESTS, "one launch, and nothing about requests that stay"
    assert not set(recorder.calls) & set(WAITS), recorder.calls
    assert again.text.blocks.data_ptr() == step.text.blocks.data_ptr(), "buffers stay where a graph found them"
    with recorded(monkeypatch) as (recorder, launches):
        attention.forward(layer, q, k, k, layer.kv_cache, again, out)
    assert launches == wanted and attention.native.ran == 2 * native
    assert not recorder.calls, f"torch calls besides the launches: {recorder.calls}"
    assert len(launches) + native <= 3
    with recorded(monkeypatch):
        captured = made.build_for_cudagraph_capture(after)
    assert captured.native == (None, "captured")[native] and again.native == (None, "native")[native]
    assert captured.text.blocks.data_ptr() == step.text.blocks.data_ptr()


def test_no_graph_where_the_wrapped_backend_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeBuilder, "support", AttentionCGSupport.NEVER)
    made = builder(device.DeviceMixedBuilder, {})
    assert made.get_cudagraph_support(None, None) == AttentionCGSupport.NEVER


def test_plans_and_steps_that_are_not_closed_stay_outside_of_graphs() -> None:
    from lostattn.serving.engine.attention.metadata import MixedBuilder, SummaryBuilder

    for kind in (MixedBuilder, SummaryBuilder):
        assert kind.get_cudagraph_support(None, None) == AttentionCGSupport.NEVER
