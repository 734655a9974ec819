"""Checking a patched folder against its own record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors, read_json
from .folder import is_weights, list_files, real_file
from .hashing import bytes_told, fingerprint, sha256_file
from .manifest import MANIFEST, FileRecord, Manifest, read_manifest, read_plan
from .tensor_table import read_table
from .weights import check_weights

LEVELS = ("sha256", "fingerprint", "plan", "weights", "note")


@dataclass(frozen=True)
class Check:
    """One row.

    Attributes:
        file: relative path.
        level: how much was looked at: `sha256` (every byte), `fingerprint` (size, header, samples), `plan`,
            `weights` (the config against the weights' headers), or `note` for a file that is not on record.
        ok: nothing wrong.
        problem: what is wrong; a remark where `level` is `note`.
    """

    file: str
    level: str
    ok: bool
    problem: str = ""


@dataclass(frozen=True)
class Verification:
    """All checks of one folder."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """True if no check failed."""
        return all(check.ok for check in self.checks)

    @property
    def problems(self) -> tuple[Check, ...]:
        """The failed checks."""
        return tuple(check for check in self.checks if not check.ok)


def verify(directory: str | Path, *, quick: bool = False) -> Verification:
    """Compare a patched folder with its record: every file, the tensor tables, the plan, the travelling code.

    Args:
        directory: what `lostattn patch` wrote, or a download of it.
        quick: look at fingerprints of weights only, even where all bytes are on record.

    Raises:
        LostattnError: not a folder patched by lostattn, or an unreadable record.
    """
    path = Path(directory).expanduser()
    manifest, root = read_manifest(path), path.resolve()
    with bytes_told("reading", 0 if quick else sum(record.size for record in manifest.files.values())):
        checks = [check_file(root, name, record, quick) for name, record in sorted(manifest.files.items())]
    checks.append(_check_plan(root, manifest))
    if all(check.ok for check in checks):  # else the rows above tell the cause
        checks.append(_check_weights(root, manifest))
    return Verification((*checks, *_extra_files(root, manifest)))


def check_file(root: Path, name: str, record: FileRecord, quick: bool = False) -> Check:
    """One file against its record."""
    full = record.sha256 is not None and not (quick and record.fingerprint is not None)
    level = "sha256" if full else "fingerprint"
    try:
        path = real_file(root, name)
        with disk_errors(f"cannot read {name}"):
            problem = _difference(path, name, record, full)
    except LostattnError as error:
        problem = str(error)
    return Check(name, level, not problem, problem)


def _difference(path: Path, name: str, record: FileRecord, full: bool) -> str:
    what = "travelling code" if record.role == "added" and name.endswith(".py") else "content"
    if (size := path.stat().st_size) != record.size:
        return f"the {what} has changed: {size} bytes, recorded were {record.size}"
    if (sha256_file(path) != record.sha256) if full else (fingerprint(path) != record.fingerprint):
        return f"the {what} has changed since it was patched"
    if record.tensors is not None and read_table(path, name).digest != record.tensors:
        return "the tensor table has changed since it was patched"
    return ""


def _check_plan(root: Path, manifest: Manifest) -> Check:
    try:
        problem = "" if read_plan(root).digest == manifest.plan else "the plan under 'sap' has changed"
    except LostattnError as error:
        problem = str(error)
    return Check("config.json", "plan", not problem, problem)


def _check_weights(root: Path, manifest: Manifest) -> Check:
    """Whether the config describes the weights that transformers and vLLM would load."""
    try:
        config = read_json(real_file(root, "config.json"), "config.json")
        names = tuple(name for name in manifest.files if (root / name).is_file())
        weights = check_weights(root, names, config.get("transformers_weights"))
        from ..model_fit import check_fit  # needs torch, which most refusals do not

        check_fit(config, weights.tensors)
    except LostattnError as error:
        return Check("config.json", "weights", False, str(error))
    return Check("config.json", "weights", True)


def _extra_files(root: Path, manifest: Manifest) -> list[Check]:
    """Files that are not on record; code and weights among them are failures, for they may be loaded."""
    try:
        result = list_files(root)
    except LostattnError as error:
        return [Check("(folder)", "note", False, str(error))]
    extra = [name for name in result if name not in manifest.files and name != MANIFEST]
    return [_extra(name) for name in extra]


def _extra(name: str) -> Check:
    if name.endswith(".py") or is_weights(name):
        return Check(name, "note", False, "not part of what was patched, and it could be loaded: remove it")
    return Check(name, "note", True, "not part of what was patched")
