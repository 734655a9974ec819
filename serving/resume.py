"""Long work that can be interrupted: finished samples on disk, used again only for the same model, data and settings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .data import Example
from .disk import disk_errors
from .reading.pictures import picture_of
from .reading.videos import VideoFile


def fingerprint(model: Any, examples: Sequence[Example], settings: Mapping[str, Any] | None = None) -> str:
    """Names model, data and settings, so that a partial run is never continued with others."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    digest.update(json.dumps(dict(settings or {}), sort_keys=True).encode())
    for name, weights in model.named_parameters():
        if name.endswith("q_proj.weight"):
            digest.update(str(weights.detach().double().sum().item()).encode())
    for example in examples:
        digest.update(f"{example.row} {example.question} {example.folder} ".encode())
        digest.update(_image_digest(example.image, example.folder))
    return digest.hexdigest()


def _image_digest(image: Any, folder: Path) -> bytes:
    """What tells one picture from another, the same in every process: its content, or the name of its file."""
    if isinstance(image, VideoFile):
        return image.name(folder).encode()
    image = picture_of(image, folder)
    if isinstance(image, Image.Image):
        image = image.tobytes()
    return hashlib.sha256(image if isinstance(image, bytes) else str(image).encode()).digest()


class Progress:
    """Finished samples in order, kept in a JSONL file if one is given. `rows` are those of earlier runs and this one."""

    def __init__(self, path: Path | None, key: str) -> None:
        self.path, self.rows = path, list[dict[str, Any]]()
        if path is None:
            return
        with disk_errors(f"cannot keep progress in {path}"):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
            if lines and lines[0] == key:
                self.rows = list(_whole_rows(lines[1:]))
            text = "\n".join([key, *(json.dumps(r) for r in self.rows)]) + "\n"
            path.write_text(text, encoding="utf-8")

    def add(self, row: dict[str, Any]) -> None:
        """Note one sample, on disk before the next one starts."""
        self.rows.append(row)
        if self.path is None:
            return
        with disk_errors(f"cannot keep progress in {self.path}"), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _whole_rows(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows up to the one that was being written when the run was cut."""
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            return
        if not isinstance(row, dict):
            return
        yield row
