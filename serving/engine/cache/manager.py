"""Block management of whole groups: blocks strictly inside an image are never allocated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ..internals import SingleTypeKVCacheManager, resolve_block_hashes
from .spans import Span, holes, is_hole, visual_spans


class SummaryManager(SingleTypeKVCacheManager):
    """Cache blocks of the layers with a `SummarySpec`.

    A hole stands as vLLM's null block in a request's block table. Real are blocks with text, with an image's last token, or
    at the end of a scheduled chunk, for they carry a running summary. Without the scheduler of this package the requests are
    unknown and every block is real, which is right and saves nothing.
    """

    requests: ClassVar[dict[str, Any]] = {}  # of the scheduler of this process
    looked_up: ClassVar[Any] = None  # the request whose prefix is being looked up

    @classmethod
    def spans(cls, request: Any) -> tuple[Span, ...]:
        """Visual spans of a request, worked out once."""
        result: tuple[Span, ...] | None = getattr(request, "_lostattn_spans", None)
        if result is None:
            result = request._lostattn_spans = visual_spans(request.mm_features)
        return result

    def _missing(self, request_id: str, have: int, num_tokens: int) -> list[bool]:
        """For every block that a request still needs: is it a hole?"""
        end = -(-num_tokens // self.block_size)
        if end <= have:  # most decode steps
            return []
        request = self.requests.get(request_id)
        result = holes(() if request is None else self.spans(request), self.block_size, have, end)
        result[-1] = False  # the running summary at the end of the chunk
        return result

    def get_num_blocks_to_allocate(
        self,
        request_id: str,
        num_tokens: int,
        new_computed_blocks: Sequence[Any],
        total_computed_tokens: int,
        num_local_computed_tokens: int,
        *args: Any,
        **kwargs: Any,
    ) -> int:
        """Real blocks that `allocate_new_blocks` will take, and cached ones that stop being free."""
        have = len(self.req_to_blocks.get(request_id, ()))
        if request_id not in self.num_cached_block:
            have += len(new_computed_blocks)
        missing = self._missing(request_id, have, num_tokens)
        evicted = self._get_num_evictable_blocks(new_computed_blocks) if new_computed_blocks else 0
        return len(missing) - sum(missing) + evicted

    def allocate_new_blocks(self, request_id: str, num_tokens: int, num_tokens_main_model: int) -> list[Any]:
        """Blocks up to num_tokens, null blocks for holes."""
        blocks = self.req_to_blocks[request_id]
        missing = self._missing(request_id, len(blocks), num_tokens)
        if not missing:
            return []
        taken = self.block_pool.get_new_blocks(len(missing) - sum(missing))
        if self._record_new_block_ids:
            self.new_block_ids.extend(block.block_id for block in taken)
        real = iter(taken)
        new = [self._null_block if hole else next(real) for hole in missing]
        blocks.extend(new)
        return new

    def cache_blocks(self, request: Any, num_tokens: int, *args: Any, **kwargs: Any) -> None:
        """Publish blocks of earlier steps only.

        vLLM publishes when it schedules, so another request of the same step may read a block that is still being
        computed. Keys and values survive that, a layer writes before it reads; a running sum does not.
        """
        super().cache_blocks(request, min(num_tokens, request.num_computed_tokens), *args, **kwargs)

    def pop_blocks_for_free(self, request_id: str) -> list[Any]:
        """Publish the prompt of a finished request, whose last step no later step has published."""
        request = self.requests.get(request_id)
        if self.enable_caching and request is not None and request.is_finished() and request_id in self.req_to_blocks:
            done = min(request.num_computed_tokens, request.num_prompt_tokens)
            boundary = (request.num_prompt_tokens - 1,)
            super().cache_blocks(request, done, None, replay_boundaries=boundary)
        return super().pop_blocks_for_free(request_id)

    @classmethod
    def find_longest_cache_hit(
        cls,
        block_hashes: Any,
        max_length: int,
        kv_cache_group_ids: list[int],
        block_pool: Any,
        kv_cache_spec: Any,
        drop_eagle_block: bool,
        alignment_tokens: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[tuple[list[Any], ...], int]:
        """Longest prefix whose blocks are cached or holes, and whose last block is real: it holds the state there."""
        size = kv_cache_spec.block_size
        hashes = resolve_block_hashes(block_hashes, block_pool.hash_block_size, size)
        spans = () if cls.looked_up is None else cls.spans(cls.looked_up)
        results: list[Any] = []
        for block, block_hash in zip(range(max_length // size), hashes, strict=False):
            hit = block_pool.get_cached_block(block_hash, kv_cache_group_ids)
            if hit is None and not is_hole(spans, size, block):
                break
            results.append(hit)
        while results and (results[-1] is None or len(results) * size % alignment_tokens):
            results.pop()
        null = block_pool.null_block
        groups = range(len(kv_cache_group_ids))
        return tuple([null if hit is None else hit[g] for hit in results] for g in groups), len(results) * size
