"""The scheduler that the plugin mixes, whole: the installed vLLM's own, on the demo's model, with chunks and preemption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")

from lostattn.serving.engine.cache.manager import SummaryManager  # noqa: E402
from lostattn.serving.engine.cache.scheduler import make_scheduler  # noqa: E402
from lostattn.serving.engine.cache.spans import is_hole  # noqa: E402
from lostattn.serving.engine.cache.spec import SummarySpec  # noqa: E402
from lostattn.serving.engine.internals import kv_cache_utils  # noqa: E402
from lostattn.serving.plugin import register  # noqa: E402
from lostattn.surgery import patch_checkpoint  # noqa: E402
from lostattn.surgery.demo.demo import MODEL  # noqa: E402
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange  # noqa: E402
from vllm.sampling_params import SamplingParams  # noqa: E402
from vllm.utils.hashing import sha256  # noqa: E402
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec  # noqa: E402
from vllm.v1.outputs import ModelRunnerOutput  # noqa: E402
from vllm.v1.request import Request  # noqa: E402
from vllm.v1.structured_output import StructuredOutputManager  # noqa: E402

pytestmark = pytest.mark.vllm
SIZE = 32
spec_of: dict[str, Any] = {"all": SummarySpec, "last": FullAttentionSpec}  # whole groups need rows `all`


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    register()
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for queries in ("all", "last"):
        found[queries] = folder / queries
        patch_checkpoint(MODEL, found[queries], mode="uniform", layers="1-5", heads="all", queries=queries)
    return found


class Engine:
    """vLLM's scheduler, and a model that answers with token 5."""

    def __init__(self, folder: Path, blocks: int) -> None:
        from vllm.engine.arg_utils import EngineArgs

        args = EngineArgs(
            model=str(folder),
            max_model_len=512,
            enforce_eager=True,
            block_size=SIZE,
            max_num_batched_tokens=128,
            async_scheduling=False,
        )
        config = args.create_engine_config()
        config.cache_config.num_gpu_blocks = blocks
        kind = spec_of[folder.name]
        spec = kind(block_size=SIZE, num_kv_heads=1, head_size=32, dtype=torch.float32)
        cache = KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer.0"], spec)])
        self.scheduler = make_scheduler(
            vllm_config=config,
            kv_cache_config=cache,
            structured_output_manager=StructuredOutputManager(config),
            block_size=SIZE,
            hash_block_size=SIZE,
        )
        kv_cache_utils.init_none_hash(sha256)
        self.hasher = kv_cache_utils.get_request_block_hasher(SIZE, sha256)
        self.pool = self.scheduler.kv_cache_manager.block_pool
        self.preempted = 0

    def add(self, name: str, image: int, tail: int) -> None:
        feature = MultiModalFeatureSpec(None, "image", f"image of {image}", PlaceholderRange(offset=0, length=image))
        ids = [7] * image + [9] * tail
        self.scheduler.add_request(
            Request(
                name,
                ids,
                SamplingParams(max_tokens=96, ignore_eos=True),
                None,
                mm_features=[feature],
                block_hasher=self.hasher,
            )
        )

    def step(self) -> dict[str, int]:
        """One step; returns how many prompt tokens of new requests were found in the cache."""
        plan = self.scheduler.schedule()
        self.check()
        names = list(plan.num_scheduled_tokens)
        requests = self.scheduler.requests
        tokens = [[5] if requests[n].num_computed_tokens >= requests[n].num_tokens else [] for n in names]
        index = {name: i for i, name in enumerate(names)}
        output = ModelRunnerOutput(req_ids=names, req_id_to_index=index, sampled_token_ids=tokens)
        self.preempted += len(plan.preempted_req_ids or ())
        self.scheduler.update_from_output(plan, output)
        return {new.req_id: new.num_computed_tokens for new in plan.scheduled_new_reqs}

    def check(self) -> None:
        for request in self.scheduler.running:
            (table,) = self.scheduler.kv_cache_manager.get_blocks(request.request_id).blocks
            spans = SummaryManager.spans(request)
            assert all(not b.is_null or is_hole(spans, SIZE, i) for i, b in enumerate(table))
            assert not table[-1].is_null

    def run(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for _ in range(1000):
            if not self.scheduler.requests:
                return found
            for name, hit in self.step().items():
                found.setdefault(name, hit)
        raise AssertionError("requests do not end")


def test_chunks_preemption_and_hits_give_all_blocks_back(patched: dict[str, Path]) -> None:
    engine = Engine(patched["all"], 12)
    before = engine.pool.get_num_free_blocks()
    for number in range(4):
        engine.add(str(number), 130 + 40 * number, 30)  # vLLM's encoder cache takes images of up to 256 tokens here
    engine.run()
    assert engine.preempted, "the pool is too large for this test"
    engine.add("again", 250, 70)
    assert engine.run() == {"again": 256}, "the prompt up to its last whole block that is the same"
    assert engine.pool.get_num_free_blocks() == before


def test_with_rows_last_the_last_prompt_row_is_not_published(patched: dict[str, Path]) -> None:
    engine = Engine(patched["last"], 40)
    engine.add("a", 200, 56)  # 256 tokens: eight whole blocks, and the last row in the eighth
    engine.run()
    engine.add("b", 200, 100)
    assert engine.run() == {"b": 224}
