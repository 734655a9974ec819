"""Requests on their way from vLLM's API server to its engine: what cannot travel, and pictures that did not.

The server keeps a list of the pictures that it has sent, and sends a picture's data once. It notes a picture when it has
prepared it; where the request is refused afterwards (too many tokens asked for, say), the engine never gets it, and the
next request with this picture, whoever sends it, is answered by "internal server error". Here a picture counts as sent
when its request was.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from ..cause import cause
from .internals import AsyncLLM, LruKeyReplicatedSenderCache, VLLMValidationError

MOST = 10_000  # pictures that were prepared and not sent; beyond it all are sent anew


def hook_sender_cache() -> None:
    """A picture is sent until a request with it went out. May be called again."""
    kind = LruKeyReplicatedSenderCache
    is_cached, update = kind.is_cached_item, kind.get_and_update_item
    if getattr(update, "_lostattn", False):
        return

    @functools.wraps(is_cached)
    def is_sent(self: Any, mm_hash: str) -> bool:
        return mm_hash not in _unsent(self) and is_cached(self, mm_hash)

    @functools.wraps(update)
    def prepared(self: Any, mm_item: Any, mm_hash: str) -> Any:
        if mm_item is None:
            return update(self, mm_item, mm_hash)
        self.invalidate(mm_hash)
        if len(_unsent(self)) >= MOST:
            self.clear_cache()
            _unsent(self).clear()
        _unsent(self).add(mm_hash)
        return update(self, mm_item, mm_hash)

    prepared._lostattn = True  # type: ignore[attr-defined]
    kind.is_cached_item, kind.get_and_update_item = is_sent, prepared


def hook_requests() -> None:
    """Refuse what cannot be packed for the engine, and note which pictures went out. May be called again."""
    plain = AsyncLLM.add_request
    if getattr(plain, "_lostattn", False):
        return

    @functools.wraps(plain)
    async def add(self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        _need_packable((params, kwargs.get("priority", 0)))
        queue = await plain(self, request_id, prompt, params, *args, **kwargs)
        cache = getattr(self.renderer, "_mm_processor_cache", None)
        if isinstance(prompt, dict) and cache is not None:
            for hashes in (prompt.get("mm_hashes") or {}).values():
                _unsent(cache).difference_update(hashes)
        return queue

    add._lostattn = True  # type: ignore[attr-defined]
    AsyncLLM.add_request = add


def _unsent(cache: Any) -> set[str]:
    """Pictures that a cache has noted and no request has taken to the engine."""
    results: set[str] = cache.__dict__.setdefault("_lostattn_unsent", set())
    return results


def _need_packable(parameters: Any) -> None:
    """Refuse numbers beyond 64 bits and text that is none: to vLLM they are a fault of the server."""
    try:
        msgspec.msgpack.encode(parameters)
    except (OverflowError, UnicodeError) as error:
        raise VLLMValidationError(
            f"a parameter of the request cannot be handed to the engine ({cause(error)}): make it smaller or leave it out"
        ) from error
    except TypeError:
        return  # objects that vLLM has ways of its own for
