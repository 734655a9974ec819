"""The patched folder as it goes to the Hub: verified, every file with its sha256."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors, to_json
from ..checkpoint.belongings import PRIVATE, TRAINING, file_reason, holds_key, refuse_keys
from ..checkpoint.folder import ESSENTIAL, is_weights, real_file
from ..checkpoint.hashing import bytes_told, sha256_bytes, sha256_file
from ..checkpoint.manifest import MANIFEST, Manifest, read_patched
from ..checkpoint.verification import verify
from .names import size_text

CARD = "README.md"
_LARGE = 2**28  # bytes from which reading is worth a line of progress
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalFile:
    """One file to be sent: where its bytes are, their number and sha256."""

    content: Path | bytes
    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> LocalFile:
        """A file that exists in memory only."""
        return cls(data, len(data), sha256_bytes(data))


@dataclass(frozen=True)
class Contents:
    """What a folder gives to the Hub.

    Attributes:
        manifest: its record, with sha256 for every file.
        card: text of README.md.
        files: path -> file, without README.md and lostattn.json.
        left_out: files of the folder that are not on record and stay at home.
        kept_back: files that are on record but must not travel (`belongings`) -> why; the record that is sent lacks them.
    """

    manifest: Manifest
    card: str
    files: Mapping[str, LocalFile]
    left_out: tuple[str, ...]
    kept_back: Mapping[str, str] = field(default_factory=dict)


def check_card(directory: str | Path) -> str:
    """Text of README.md. Raises LostattnError if there is none: nobody could know what was done to the model."""
    path = Path(directory).expanduser()
    if path.is_dir() and (path / MANIFEST).exists() and not (path / CARD).is_file():
        raise LostattnError(f"{path} has no {CARD}, the model card: patch again, or put it back before you push")
    read_patched(path)
    with disk_errors(f"cannot read {CARD}"):
        return real_file(path.resolve(), CARD).read_text(encoding="utf-8", errors="replace")


def read_contents(directory: str | Path) -> Contents:
    """Verify a patched folder and take stock of it; every byte is read once.

    A model card that was edited since is welcome, any other difference is not.

    Raises:
        LostattnError: not patched by lostattn, damaged, or without a card.
    """
    card = check_card(directory)
    patched = read_patched(directory)
    result = verify(directory, quick=True)
    if wrong := [check for check in result.problems if check.file != CARD]:
        raise LostattnError(
            f"{wrong[0].file}: {wrong[0].problem}; 'lostattn verify' tells more, a damaged folder is not pushed"
        )
    kept_back = _kept_back(patched.path, patched.manifest)
    names = [name for name in patched.manifest.files if name not in kept_back]
    read = sum(patched.manifest.files[name].size for name in names if is_weights(name))
    with bytes_told("reading", read):
        files = {name: _local(patched.path, patched.manifest, name) for name in names if name != CARD}
    records = {
        name: replace(patched.manifest.files[name], sha256=files[name].sha256)
        if name in files
        else patched.manifest.files[name]
        for name in names
    }
    extra = tuple(check.file for check in result.checks if check.level == "note" and check.ok)
    stated = {**patched.manifest.left_out, **kept_back}
    manifest = replace(
        patched.manifest, files=records, left_out={name: why for name, why in stated.items() if why != PRIVATE}
    )
    return Contents(manifest, card, files, extra, kept_back)


def _kept_back(root: Path, manifest: Manifest) -> dict[str, str]:
    """Carried files that stay at home, whoever put them on record: an older lostattn took everything along.

    Raises:
        LostattnError: a part of the model itself holds a key.
    """
    results: dict[str, str] = {}
    holders = [n for n in (*manifest.files, MANIFEST) if holds_key(real_file(root, n), n)]
    refuse_keys(
        n for n in holders if n == MANIFEST or manifest.files[n].role != "carried" or PurePosixPath(n).name in ESSENTIAL
    )
    for name, record in manifest.files.items():
        reason = file_reason(name) if record.role == "carried" else None
        if reason in (PRIVATE, TRAINING) or name in holders:
            results[name] = PRIVATE if name in holders else str(reason)
    return results


def with_card(contents: Contents, card: str, base: Mapping[str, str | None]) -> dict[str, LocalFile]:
    """All files to be sent: those of the folder, the card, and a record that knows this card and this base."""
    sent = LocalFile.of(card.encode("utf-8"))
    record = replace(contents.manifest.files[CARD], size=sent.size, sha256=sent.sha256)
    manifest = replace(contents.manifest, base=dict(base), files={**contents.manifest.files, CARD: record})
    return {**contents.files, CARD: sent, MANIFEST: LocalFile.of(to_json(manifest.to_json()))}


def _local(root: Path, manifest: Manifest, name: str) -> LocalFile:
    path, recorded = real_file(root, name), manifest.files[name].sha256
    with disk_errors(f"cannot read {name}"):
        size = path.stat().st_size
        if size >= _LARGE:
            logger.info(f"reading {name}, {size_text(size)}")
        if recorded is not None and not is_weights(name):
            return LocalFile(path, size, recorded)  # verified a moment ago
        result = sha256_file(path)
    if recorded not in (None, result):
        raise LostattnError(f"{name}: the content has changed since it was patched; a damaged folder is not pushed")
    return LocalFile(path, size, result)
