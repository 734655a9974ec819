"""The YAML front matter of a model card: what the Hub reads."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import yaml

_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_MAX, _MAX_SETTING = 2**16, 2**12  # characters
_LICENCE_KEYS = ("license", "license_name", "license_link")
_SETTING = re.compile(r"^(?:license|license_name|license_link|language):.*$(?:\r?\n(?:[ \t]|-).*$)*", re.MULTILINE)


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
    match = _FRONT.match((original or "")[:_MAX])
    raw = _settings(match.group(1)) if match else {}
    found = {key: raw[key] for key in (*_LICENCE_KEYS, "language") if _plain(raw.get(key))}
    return found if "license" in found else {key: value for key, value in found.items() if key == "language"}


def _settings(block: str) -> dict[str, Any]:
    """The few wanted keys. Only their own lines are parsed: a whole block from anywhere may be made to take minutes."""
    found: dict[str, Any] = {}
    for match in _SETTING.finditer(block):
        text = match.group()
        if len(text) <= _MAX_SETTING and text.count("[") + text.count("{") <= 1:
            with suppress(yaml.YAMLError, ValueError):
                found |= yaml.safe_load(text)
    return found


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return 0 < len(value) <= 200 and all(isinstance(item, str) and _plain(item) for item in value)
    return isinstance(value, str) and 0 < len(value) <= 500
