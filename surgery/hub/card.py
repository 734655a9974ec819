"""The model card as the Hub gets it: its base, the base's licence, measured results."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ...patches.errors import LostattnError
from ..checkpoint.card_metadata import LICENCE_KEYS, RELATION, dump, inherited, split_front
from ..checkpoint.manifest import Manifest
from .remote import Snapshot
from .results import HEADING, Result, eval_results, table

_BASE_LINE = re.compile(r"^Base: a local folder, .*$", re.MULTILINE)
_NO_LICENCE = re.compile(r"^The base model's card states no licence that could be taken over:.*$\n*", re.MULTILINE)
_BEFORE = "## Load and serve"


def hub_card(text: str, manifest: Manifest, repo: str, base: Snapshot | None, results: Sequence[Result] = ()) -> str:
    """The card to be pushed.

    Args:
        text: README.md of the folder.
        manifest: the folder's record; the base's own README.md is among its originals.
        repo: where it goes; names the model in the model-index.
        base: the base model on the Hub, if it is known and could be read.
        results: measured numbers.

    Raises:
        LostattnError: no readable front matter, or the base's licence was dropped or changed.
    """
    values, body = _read(text)
    licence = base_licence(manifest, base)
    _keep_licence(values, licence, manifest)
    if name := base.repo if base is not None else manifest.base.get("repo"):
        values |= {"base_model": name, "base_model_relation": values.get("base_model_relation") or RELATION}
    if base is not None:
        body = _BASE_LINE.sub(lambda _: _base_line(base), body)
    if licence:
        body = _NO_LICENCE.sub("", body)
    if results:
        body = _with_section(body, table(results))
        values |= {"model_name": repo.rpartition("/")[2], "eval_results": eval_results(results)}
        values.pop("model-index", None)
    return dump(values) + body


def base_licence(manifest: Manifest, base: Snapshot | None) -> dict[str, Any]:
    """The licence keys of the base: from the card that came with it, else from the Hub."""
    original = manifest.originals.get("README.md")
    stated = inherited(None if original is None else original.decode("utf-8", errors="replace"))
    if "license" not in stated and base is not None:
        stated = {key: base.card.get(key) for key in LICENCE_KEYS}
    return {key: stated[key] for key in LICENCE_KEYS if stated.get(key)} if stated.get("license") else {}


def _read(text: str) -> tuple[dict[str, Any], str]:
    front, body = split_front(text)
    try:
        values = yaml.safe_load(front) if front is not None else None
    except (yaml.YAMLError, ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise LostattnError(
            "README.md has no readable front matter (YAML between two lines '---'), and without it the Hub cannot tell "
            "base and licence: put it back, or patch again"
        )
    return values, body


def _keep_licence(values: dict[str, Any], licence: Mapping[str, Any], manifest: Manifest) -> None:
    """The base's licence goes along, unchanged."""
    if not licence:
        return
    base = manifest.base.get("repo") or manifest.base.get("folder") or "the base model"
    mine = {key: values.get(key) for key in licence}
    if mine["license"] is None and not inherited(_original(manifest)).get("license"):
        values |= licence  # known only now
    elif mine != dict(licence):
        key = next(key for key in licence if mine[key] != licence[key])
        raise LostattnError(
            f"README.md says {key} {mine[key] or 'nothing'}, but {base} is under {licence[key]}: a copy keeps the "
            f"licence of its base, write '{key}: {licence[key]}' into the front matter"
        )


def _original(manifest: Manifest) -> str | None:
    data = manifest.originals.get("README.md")
    return None if data is None else data.decode("utf-8", errors="replace")


def _base_line(base: Snapshot) -> str:
    return f"Base: [{base.repo}](https://huggingface.co/{base.repo}) at revision `{base.commit}`."


def _with_section(body: str, section: str) -> str:
    """The section in place of an older one, before how to load, or at the end."""
    body = re.sub(rf"^{HEADING}\n.*?(?=^## |\Z)", "", body, flags=re.MULTILINE | re.DOTALL)
    before, result, after = body.partition(_BEFORE)
    return f"{before}{section}\n{result}{after}" if result else f"{body.rstrip()}\n\n{section}"
