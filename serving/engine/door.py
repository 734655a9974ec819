"""What `lostattn serve` changes inside vLLM's API server: content has no names but its own, refusals say why.

vLLM lets a client name a picture (`uuid`, or the hashes of features that were made elsewhere) and answers from whatever
came first under that name, whoever sent it. All such names come through two functions, which are closed here. What becomes of
requests on their way to the engine is in `handing_over.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ...patches.errors import LostattnError
from ..refusals import unusable_pictures
from .handing_over import hook_requests, hook_sender_cache
from .internals import BaseMultiModalProcessor, renderer, token_serving

NO_NAMES = (
    "a uuid of a picture, video or audio is not taken here, since others may have sent something else under it: leave "
    "uuid out and send the content itself"
)
NO_FEATURES = (
    "features made elsewhere are not taken here, since their hashes name content that the server cannot check: send "
    "content_parts instead"
)


def install() -> None:
    """Put the changes in place, in this process; may be called again."""
    _replace(renderer, "parse_mm_uuids", _without_names)
    _replace(token_serving, "mm_kwargs_from_features", _without_features)
    _replace(BaseMultiModalProcessor, "apply", _with_reasons)
    hook_sender_cache()
    hook_requests()


def _replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    plain = getattr(owner, name)
    if not getattr(plain, "_lostattn", False):
        wrapped = functools.wraps(plain)(wrap(plain))
        wrapped._lostattn = True  # type: ignore[attr-defined]
        setattr(owner, name, wrapped)


def _without_names(plain: Any) -> Callable[..., Any]:
    def parse(uuids: Any, *args: Any, **kwargs: Any) -> Any:
        for given in (uuids or {}).values():
            if isinstance(given, str) or any(one is not None for one in given or ()):
                raise LostattnError(NO_NAMES)
        return plain(uuids, *args, **kwargs)

    return parse


def _without_features(_: Any) -> Callable[..., Any]:
    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise LostattnError(NO_FEATURES)

    return refuse


def _with_reasons(plain: Any) -> Callable[..., Any]:
    def apply(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return plain(self, inputs, *args, **kwargs)
        except (LostattnError, MemoryError):
            raise
        except Exception as error:  # processors raise whatever they stumble over
            reason = error
            if isinstance(error, ValueError) and isinstance(error.__cause__, Exception):
                reason = error.__cause__  # vLLM's own words hold the data and not what is wrong with it
            raise LostattnError(unusable_pictures(_sizes(inputs), reason)) from error

    return apply


def _sizes(inputs: Any) -> list[tuple[int, int]]:
    """Width and height of the pictures of a request, as far as they can be told."""
    result = inputs.mm_data_items.get("image")
    sizes = []
    for i in range(len(result) if hasattr(result, "get_image_size") else 0):
        size = result.get_image_size(i)
        sizes.append((int(size.width), int(size.height)))
    return sizes
