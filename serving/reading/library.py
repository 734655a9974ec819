"""Data that the library `datasets` reads: what it saved, clones of the Hub's data sets, the Hub. Pictures stay undecoded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ...patches.errors import LostattnError
from ..cause import cause
from ..shown import shown
from .folders import choose_split
from .place import Place

INSTEAD = "give a JSONL, CSV or parquet file instead"
SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")


def rows_of_folder(path: Path, splits: Sequence[str], split: str, subset: str = "") -> Iterator[Any]:
    """Rows of a folder that `datasets` saved or that is a clone of a data set. Nothing is fetched.

    Raises:
        LostattnError: the library is missing or cannot read it, or there is no such split.
    """
    datasets = _library(what=f"the folder {shown(path.name)} has no list of rows (metadata.jsonl or data.jsonl); ")
    _check_readme(path)
    try:
        if any((path / name).exists() for name in SAVED):
            yield from _rows(_split(datasets.load_from_disk(str(path)), splits, split))
        else:
            yield from _every_config(datasets, str(path), {}, splits, split, subset)
    except (LostattnError, GeneratorExit):
        raise
    except Exception as error:  # datasets raises many kinds
        raise LostattnError(
            f"{shown(str(path))} cannot be read as a dataset ({shown(cause(error))}): {INSTEAD}"
        ) from error


def rows_of_hub(place: Place, splits: Sequence[str], split: str, subset: str = "") -> Iterator[Any]:
    """Rows of a data set of the Hub.

    Raises:
        LostattnError: the library is missing, the Hub has no such data set, or there is no such split.
    """
    datasets = _library()
    at = {"revision": place.revision} if place.revision else {}
    try:
        yield from _every_config(datasets, place.repo, at, splits, split, place.config or subset, bool(place.config))
    except (LostattnError, GeneratorExit):
        raise
    except Exception as error:
        off = " (the Hub is switched off by HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise LostattnError(
            f"the data {shown(place.repo)} is no file here and cannot be had from the Hub{off}: {shown(cause(error))}; "
            "give a JSONL or parquet file or a dataset folder"
        ) from error


def _every_config(
    datasets: Any, name: str, at: dict[str, str], splits: Sequence[str], split: str, config: str, strict: bool = False
) -> Iterator[Any]:
    """One configuration, or all behind each other (MMMU has one for every subject)."""
    there = datasets.get_dataset_config_names(name, **at)
    if strict and config not in there:
        known = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
        raise LostattnError(f"the data has no configuration {shown(config)}: choose one of {known}")
    parts = [
        _split(datasets.load_dataset(name, c, **at), splits, split) for c in ([config] if config in there else there)
    ]
    for part in parts:
        yield from _rows(part)


def _split(found: Any, splits: Sequence[str], split: str) -> Any:
    if isinstance(found, dict):
        return found[choose_split(list(found), splits, split)]
    if split:
        raise LostattnError(f"the data has no split {shown(split)}: it has no splits at all, leave it out")
    return found


def _rows(table: Any) -> Iterator[Any]:
    """Rows with columns undecoded, also within lists: pictures are opened one by one, when it is their turn."""
    for name, kind in (table.features or {}).items():
        if (plain := _undecoded(kind)) is not kind:
            table = table.cast_column(name, plain)
    yield from table


def _undecoded(kind: Any) -> Any:
    """The same kind of column without decoding; the very object if nothing in it is decoded."""
    if isinstance(kind, dict):
        results = {k: _undecoded(v) for k, v in kind.items()}
        return results if any(results[k] is not v for k, v in kind.items()) else kind
    if isinstance(kind, list) and len(kind) == 1:
        inner = _undecoded(kind[0])
        return kind if inner is kind[0] else [inner]
    if getattr(kind, "decode", None) is True:
        return (
            replace(kind, decode=False)
            if is_dataclass(kind) and not isinstance(kind, type)
            else type(kind)(decode=False)
        )
    if is_dataclass(kind) and not isinstance(kind, type) and hasattr(kind, "feature"):
        inner = _undecoded(kind.feature)
        return kind if inner is kind.feature else replace(kind, feature=inner)
    return kind


def _check_readme(folder: Path) -> None:
    """Refuse a clone whose README sends the library to other machines for its files."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return
    front = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    try:
        configs = (yaml.safe_load(front) or {}).get("configs")
    except (yaml.YAMLError, AttributeError, RecursionError):
        return
    if "://" in str(configs):
        raise LostattnError(
            f"README.md in {shown(folder.name)} names files on other machines, and none is fetched: {INSTEAD}"
        )


def _library(what: str = "") -> Any:
    try:
        import datasets
    except ImportError as error:
        raise LostattnError(
            f"{what}reading parquet, dataset folders and the Hub needs: pip install datasets"
        ) from error
    return datasets
