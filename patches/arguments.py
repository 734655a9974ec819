"""The arguments and outputs of a forward call, whatever the installed transformers calls the cache among them.

Since transformers 5.24 the cache is `cache`, before it was `past_key_values`; both names go on working. It is found by
what it is, not by its name, so that another renaming cannot hide it. The other arguments that a patched model reads are
looked up in the plain model's signature: one that is missing there ends the call with an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import transformers
from transformers.cache_utils import Cache

from .errors import LostattnError

# What `SapInner.forward` reads or hands on by name.
READ = ("input_ids", "attention_mask", "inputs_embeds", "pixel_values", "mm_encoder_outputs")
CACHE_NAMES = ("cache", "past_key_values")


@lru_cache(maxsize=64)
def _signature(forward: Callable[..., Any]) -> inspect.Signature:
    """The signature of a plain model's forward, checked.

    Raises:
        LostattnError: an argument that a patched model has to read is not among its parameters.
    """
    signature = inspect.signature(forward)
    missing = [name for name in READ if name not in signature.parameters]
    if missing:
        raise LostattnError(
            f"transformers {transformers.__version__} has no argument {', '.join(missing)} in {forward.__qualname__}, which "
            "this patched model reads: install a tested transformers, or patch the source again with a newer lostattn"
        )
    return signature


def by_name(
    forward: Callable[..., Any], model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """All arguments of a call of `forward(model, *args, **kwargs)` by their names."""
    signature = _signature(forward)
    if not args:
        return dict(kwargs)
    result = dict(signature.bind(model, *args, **kwargs).arguments)
    del result[next(iter(signature.parameters))]
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            result |= result.pop(parameter.name, {})
    return result


def cache_among(arguments: Mapping[str, Any]) -> Any:
    """The one cache among the arguments of a call, or None.

    Raises:
        LostattnError: two different caches, or something under a cache's name that is none.
    """
    results = {id(value): value for value in arguments.values() if isinstance(value, Cache)}
    if len(results) > 1:
        raise LostattnError("the call was given two caches: give one, as 'cache' or as 'past_key_values'")
    for name in CACHE_NAMES:
        value = arguments.get(name)
        if value is not None and not isinstance(value, Cache):
            raise LostattnError(
                f"'{name}' is a {type(value).__name__}, not a cache of transformers {transformers.__version__}: "
                "give a DynamicCache, a StaticCache or another transformers.Cache"
            )
    return next(iter(results.values()), None)


def rename_cache(forward: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with the cache under the name that a plain model's forward gives it, whichever of the two it came by."""
    known = [name for name in CACHE_NAMES if name in _signature(forward).parameters]
    if not known:
        return arguments
    return {known[0] if name in CACHE_NAMES and value is not None else name: value for name, value in arguments.items()}


def cache_of_output(out: Any) -> Any:
    """The cache that a model without head returns, or None."""
    values = out if isinstance(out, tuple) else out.values()
    return next((value for value in values if isinstance(value, Cache)), None)
