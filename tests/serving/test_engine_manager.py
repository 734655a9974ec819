"""Blocks of whole groups by the installed vLLM's own pool and manager: what is taken, found again and given back.

Nothing is computed: requests are scheduled in chunks, preempted, finished and asked again, as the engine does it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("vllm")

from lostattn.serving.engine.cache import block_record  # noqa: E402
from lostattn.serving.engine.cache.manager import SummaryManager  # noqa: E402
from lostattn.serving.engine.cache.scheduler import _Looking  # noqa: E402
from lostattn.serving.engine.cache.spans import is_hole  # noqa: E402
from lostattn.serving.engine.cache.spec import SummarySpec, register_specs  # noqa: E402
from lostattn.serving.engine.internals import KVCacheManager, RequestStatus, kv_cache_utils  # noqa: E402
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange  # noqa: E402
from vllm.sampling_params import SamplingParams  # noqa: E402
from vllm.utils.hashing import sha256  # noqa: E402
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec  # noqa: E402
from vllm.v1.request import Request  # noqa: E402

pytestmark = pytest.mark.vllm
SIZE, LONGEST, IMAGE = 16, 1024, 7  # tokens of a block, of a request, id of an image token
Layout = list[tuple[int, int]]  # (text tokens in front, tokens of the image)


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    register_specs()
    kv_cache_utils.init_none_hash(sha256)
    yield
    SummaryManager.requests = {}


class Engine:
    """As much of a scheduler as the manager of the cache needs: requests, chunks, preemption, the end of a request."""

    def __init__(self, blocks: int = 400, mixed: bool = True, larger: int = 1) -> None:
        """`larger`: blocks of the layers that keep every token hold so many of the summaries' blocks."""
        common: dict[str, Any] = {"num_kv_heads": 1, "head_size": 32, "dtype": torch.float32}
        full = [FullAttentionSpec(block_size=SIZE * larger, **common)] if mixed else []
        specs = [SummarySpec(block_size=SIZE, **common), *full]
        groups = [KVCacheGroupSpec([f"layer.{i}"], spec) for i, spec in enumerate(specs)]
        config = KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=groups)
        self.manager = KVCacheManager(
            config, LONGEST, scheduler_block_size=SIZE * larger if mixed else SIZE, hash_block_size=SIZE
        )
        self.manager.get_computed_blocks = _Looking(self.manager.get_computed_blocks)
        self.requests: dict[str, Any] = {}
        SummaryManager.requests = self.requests
        self.hasher = kv_cache_utils.get_request_block_hasher(SIZE, sha256)

    @property
    def free(self) -> int:
        return self.manager.block_pool.get_num_free_blocks()

    def add(self, name: str, layout: Layout, tail: int, seed: int = 0) -> Any:
        """A waiting request: images named by their place and `seed`, text of known ids."""
        ids, features = [], []
        for number, (text, length) in enumerate(layout):
            ids += [100 + number] * text
            position = PlaceholderRange(offset=len(ids), length=length)
            features.append(MultiModalFeatureSpec(None, "image", f"image {number} {seed}", position))
            ids += [IMAGE] * length
        ids += [200] * tail
        parameters = SamplingParams(max_tokens=64)
        request = Request(name, ids, parameters, None, mm_features=features, block_hasher=self.hasher)
        self.requests[name] = request
        return request

    def start(self, request: Any) -> int:
        """Look its prefix up; returns the tokens that were found, with blocks that are noted for `step`."""
        found = self.manager.get_computed_blocks(request)
        self.found = found[0], found[1]
        return int(found[1])

    def step(self, request: Any, tokens: int, found: tuple[Any, int] | None = None) -> bool:
        """Schedule tokens of a request and compute them; False if the pool has no room."""
        blocks, hit = found or (None, 0)
        done = self.manager.allocate_slots(request, tokens, hit, blocks)
        if done is None:
            return False
        request.status = RequestStatus.RUNNING
        request.num_computed_tokens += hit + tokens
        return True

    def prefill(self, request: Any, chunk: int) -> bool:
        """The whole prompt in chunks; False if the pool has no room for one."""
        hit = self.start(request)
        found: tuple[Any, int] | None = self.found
        while (left := request.num_tokens - request.num_computed_tokens - (hit if found else 0)) > 0:
            if not self.step(request, min(chunk, left), found):
                return False
            found = None
        return True

    def decode(self, request: Any, count: int) -> bool:
        for _ in range(count):
            request.append_output_token_ids(300)
            if not self.step(request, 1):
                return False
        return True

    def preempt(self, request: Any) -> None:
        self.manager.free(request)
        request.status, request.num_computed_tokens = RequestStatus.PREEMPTED, 0

    def finish(self, request: Any) -> None:
        request.status = RequestStatus.FINISHED_STOPPED
        self.manager.free(request)
        del self.requests[request.request_id]

    def table(self, request: Any, group: int = 0) -> list[Any]:
        return list(self.manager.get_blocks(request.request_id).blocks[group])


def check_table(engine: Engine, request: Any) -> None:
    """Every block is there, only holes are null, and no real block stands twice."""
    table = engine.table(request)
    assert len(table) == -(-request.num_computed_tokens // SIZE)
    spans = SummaryManager.spans(request)
    for number, block in enumerate(table):
        assert not block.is_null or is_hole(spans, SIZE, number), (
            f"block {number} holds something and was not allocated"
        )
    assert not table[-1].is_null, "the running summary of the last chunk"
    real = [block.block_id for block in table if not block.is_null]
    assert len(real) == len(set(real)) and all(block.ref_cnt > 0 for block in table if not block.is_null)


def test_an_image_at_the_very_start() -> None:
    engine = Engine(mixed=False)
    before, request = engine.free, engine.add("a", [(0, 160)], 20)
    assert engine.prefill(request, 1000)
    # 12 blocks: 0..7 lie inside the image, 8 is in front of the one with its last token
    assert [block.is_null for block in engine.table(request)] == [True] * 8 + [False] * 4
    assert before - engine.free == 4 == block_record.held(engine.manager, "a")
    engine.finish(request)
    assert engine.free == before
    again = engine.add("b", [(0, 160)], 20)
    assert engine.start(again) == 176, "the whole prompt but its last tokens"
    table = list(engine.found[0].blocks[0])
    assert [block.is_null for block in table] == [True] * 8 + [False] * 3
    assert engine.step(again, 4, engine.found) and [b.is_null for b in engine.table(again)] == [True] * 8 + [False] * 4
    engine.finish(again)
    assert engine.free == before


def test_another_image_is_not_found() -> None:
    engine = Engine()
    first = engine.add("a", [(0, 160)], 20)
    assert engine.prefill(first, 1000)
    engine.finish(first)
    assert engine.start(engine.add("b", [(0, 160)], 20, seed=1)) == 0


@pytest.mark.parametrize("mixed", [False, True])
def test_another_question_about_the_same_image(mixed: bool) -> None:
    engine = Engine(mixed=mixed)
    first = engine.add("a", [(0, 200)], 40)
    assert engine.prefill(first, 64)
    engine.finish(first)
    second = engine.add("b", [(0, 200)], 3)
    assert engine.start(second) >= 176, "up to the last whole block of the image"
    assert engine.step(second, second.num_tokens - engine.found[1], engine.found)
    check_table(engine, second)


@pytest.mark.parametrize("larger", [3, 8])
def test_a_prefix_ends_at_the_larger_block(larger: int) -> None:
    engine = Engine(larger=larger)
    first = engine.add("a", [(5, 200)], 60)
    assert engine.prefill(first, 64)
    engine.finish(first)
    again = engine.add("b", [(5, 200)], 60)
    assert engine.start(again) == 264 // (SIZE * larger) * SIZE * larger
    assert engine.step(again, again.num_tokens - engine.found[1], engine.found)
    check_table(engine, again)
    assert len(engine.table(again, 1)) == -(-again.num_tokens // (SIZE * larger))


def test_what_is_computed_in_this_step_is_not_found() -> None:
    engine = Engine()
    first, second = engine.add("a", [(0, 160)], 40), engine.add("b", [(0, 160)], 40)
    engine.start(first)
    assert engine.manager.allocate_slots(first, 200, 0, engine.found[0]) is not None
    assert engine.start(second) == 0, "another request of the same step would read a summary that is being computed"


layouts = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 180)), max_size=3)
actions = st.lists(
    st.tuples(
        st.sampled_from(["add", "decode", "preempt", "finish"]),
        st.integers(0, 5),
        layouts,
        st.integers(1, 30),
        st.sampled_from([16, 33, 64, 1000]),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150)
@given(actions, st.booleans(), st.sampled_from([40, 90, 400]), st.sampled_from([1, 3, 8]))
def test_all_blocks_come_back(steps: list[Any], mixed: bool, blocks: int, larger: int) -> None:
    """Whatever happens, tables are right at every moment, and in the end the pool has all that it had."""
    engine = Engine(blocks, mixed, larger)
    everything, running = engine.free, {}
    for number, (what, which, layout, tail, chunk, seed) in enumerate(steps):
        names = sorted(running)
        name = names[which % len(names)] if names else None
        if what == "add":
            request = running[str(number)] = engine.add(str(number), layout, tail, seed)
            if request.num_tokens > LONGEST - 64 or not engine.prefill(request, chunk):
                engine.preempt(running.pop(str(number)))
        elif name is not None and what == "decode":
            if not engine.decode(running[name], tail):
                engine.preempt(running.pop(name))
        elif name is not None and what == "preempt":
            engine.preempt(running[name])
            if not engine.prefill(running[name], chunk):
                engine.preempt(running.pop(name))
        elif name is not None and what == "finish":
            engine.finish(running.pop(name))
        for request in running.values():
            check_table(engine, request)
        held = {
            b.block_id for r in running.values() for g in range(1 + mixed) for b in engine.table(r, g) if not b.is_null
        }
        assert everything - engine.free == len(held), "blocks that nobody holds are free, and no others"
    for request in running.values():
        engine.finish(request)
    assert engine.free == everything


def test_the_manager_overrides_what_is_there() -> None:
    """Names of vLLM's own, and its positional parameters in its own order."""
    base = SummaryManager.__mro__[1]
    for name in ("get_num_blocks_to_allocate", "allocate_new_blocks", "cache_blocks", "pop_blocks_for_free"):
        ours, theirs = (list(inspect.signature(getattr(c, name)).parameters) for c in (SummaryManager, base))
        named = [p for p in ours if p not in ("args", "kwargs")]
        assert named == theirs[: len(named)], name
