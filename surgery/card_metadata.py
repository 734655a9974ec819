"""The YAML front matter of a model card: what the Hub reads."""

from __future__ import annotations

import re
from typing import Any

import yaml

_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_MAX = 2**16
_LICENCE_KEYS = ("license", "license_name", "license_link")


def front_matter(repo: str | None, modes: tuple[str, ...], original: str | None) -> str:
    """The block between two `---` lines, closing line included.

    Args:
        repo: Hub id of the base model, None if it came from a folder.
        modes: extra tags.
        original: the base model's README.md; licence and languages are taken over.
    """
    values: dict[str, Any] = {}
    if repo is not None:
        values["base_model"] = repo
        # The Hub knows finetune, adapter, merge and quantized. Nothing was trained, merged or rounded: something was
        # added to unchanged weights, and that is what an adapter is. Left out, the Hub would guess finetune.
        values["base_model_relation"] = "adapter"
    values |= {"library_name": "transformers", "pipeline_tag": "image-text-to-text"}
    values["tags"] = ["lostattn", "sap", *modes]
    values |= inherited(original)
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n"


def inherited(original: str | None) -> dict[str, Any]:
    """Licence and languages of the base model's card, as far as they are plain strings."""
    raw = parse_front_matter(original)
    found = {key: raw[key] for key in (*_LICENCE_KEYS, "language") if _plain(raw.get(key))}
    return found if "license" in found else {key: value for key, value in found.items() if key == "language"}


def parse_front_matter(text: str | None) -> dict[str, Any]:
    """The front matter of a card from anywhere; empty if there is none or it is no YAML mapping."""
    match = _FRONT.match(text or "")
    if match is None or len(match.group(1)) > _MAX:
        return {}
    try:
        raw = yaml.safe_load(match.group(1))
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return 0 < len(value) <= 200 and all(isinstance(item, str) and _plain(item) for item in value)
    return isinstance(value, str) and 0 < len(value) <= 500
