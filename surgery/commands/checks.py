"""Mistakes that can be told before torch is loaded: folders, files and ranges that cannot be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..spec import PatchSpec


def need_models(*folders: str | Path | None) -> None:
    """LostattnError unless all of these, None left out, are folders of models."""
    from ..model_folder import is_patched

    for folder in folders:
        if folder is not None:
            is_patched(folder)


def need_sources(sources: Iterable[str]) -> None:
    """LostattnError unless all of these are folders, or could be Hub ids."""
    from ..checkpoint.source import local_folder

    for source in sources:
        local_folder(source)


def need_data(*data: str | None) -> None:
    """LostattnError unless all of these, None left out, are data that is here or could be on the Hub."""
    from ...serving.reading.place import find_place

    for text in data:
        if text is not None:
            find_place(text)


def need_files(*files: tuple[str, str | Path | None]) -> None:
    """LostattnError unless all files that are given exist; the option is named."""
    from ...patches.errors import LostattnError

    for option, path in files:
        if path is not None and not Path(path).is_file():
            raise LostattnError(f"{option} {path} cannot be read: there is no such file, check the path")


def need_picture(image: str | None) -> None:
    """LostattnError unless that is a picture, or none is given."""
    if image is not None:
        from ...serving.reading.pictures import open_picture

        open_picture(image)


def need_readable(spec: PatchSpec) -> None:
    """LostattnError for a mode that is none, and for layers, heads or groups that no model could have."""
    from ...patches.errors import LostattnError
    from ...patches.plan import Band
    from ..ranges import parse_groups, parse_heads, parse_numbers
    from .choices import MODE

    if spec.mode not in MODE.choices:
        raise LostattnError(MODE.refusal(spec.mode))
    if isinstance(spec.layers, str) and spec.layers.strip() and spec.layers.strip().lower() not in ("all", "none"):
        parse_numbers(spec.layers, "layers")
    heads = parse_heads(spec.heads)
    if isinstance(heads, tuple):
        Band(*heads)
    parse_groups(spec.groups)
