"""The YAML front matter of a model card: what the Hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import yaml

from ...patches.errors import LostattnError

_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_MAX, _MAX_SETTING = 2**16, 2**12  # characters
LICENCE_KEYS = ("license", "license_name", "license_link")
# The Hub knows finetune, adapter, merge and quantized. Nothing was trained, merged or rounded: something was
# added to unchanged weights, and that is what an adapter is. Left out, the Hub would guess finetune.
RELATION = "adapter"
_SETTING = re.compile(r"^(?:license|license_name|license_link|language):.*$(?:\r?\n(?:[ \t]|-).*$)*", re.MULTILINE)


def front_matter(repo: str | None, modes: tuple[str, ...], original: str | None) -> str:
    """The block between two `---` lines, closing line included.

    Args:
        repo: Hub id of the base model, None if it came from a folder.
        modes: extra tags.
        original: the base model's README.md; licence and languages are taken over.
    """
    base = {} if repo is None else {"base_model": repo, "base_model_relation": RELATION}
    fixed = {"library_name": "transformers", "pipeline_tag": "image-text-to-text", "tags": ["lostattn", "sap", *modes]}
    return dump({**base, **fixed, **inherited(original)})


def dump(values: Mapping[str, Any]) -> str:
    """Metadata as the Hub's client writes it, between two `---` lines; `eval_results` become its model-index.

    Raises:
        LostattnError: a model-index that the client cannot read.
    """
    from huggingface_hub import ModelCardData

    settings = {key: value for key, value in values.items() if key not in ("self", "ignore_metadata_errors")}
    try:
        data = ModelCardData(**settings)
    except ValueError:
        raise LostattnError(
            "the model card's model-index is not in the Hub's form: correct it, or take it out"
        ) from None
    return f"---\n{data.to_yaml(original_order=list(settings))}\n---\n"


def split_front(text: str) -> tuple[str | None, str]:
    """(front matter without its lines `---`, the rest); None without front matter, or with more than 64 KiB of it."""
    match = _FRONT.match(text[:_MAX])
    return (match.group(1), text[match.end() :]) if match else (None, text)


def inherited(original: str | None) -> dict[str, Any]:
    """Licence and languages of the base model's card, as far as they are plain strings."""
    front, _ = split_front(original or "")
    raw = _settings(front) if front is not None else {}
    results = {key: raw[key] for key in (*LICENCE_KEYS, "language") if _plain(raw.get(key))}
    return results if "license" in results else {key: value for key, value in results.items() if key == "language"}


def _settings(block: str) -> dict[str, Any]:
    """The few wanted keys. Only their own lines are parsed: a whole block from anywhere may be made to take minutes."""
    results: dict[str, Any] = {}
    for match in _SETTING.finditer(block):
        text = match.group()
        if len(text) <= _MAX_SETTING and text.count("[") + text.count("{") <= 1:
            with suppress(yaml.YAMLError, ValueError):
                results |= yaml.safe_load(text)
    return results


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return 0 < len(value) <= 200 and all(isinstance(item, str) and _plain(item) for item in value)
    return isinstance(value, str) and 0 < len(value) <= 500
