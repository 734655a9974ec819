"""Writing a patched checkpoint, and taking the patch back. No weights are loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...patches.plan import Plan, one_of
from ...serving.disk import disk_errors, sync_tree, to_json, write_bytes, write_json
from .folder import blobs_of, is_weights, real_file
from .hashing import FULL_LIMIT, Sha256, bytes_told, fingerprint, sha256_bytes, sha256_file
from .manifest import MANIFEST, FileRecord, Manifest, Patched, read_patched
from .place import WEIGHTS, place
from .provenance import lostattn_version, portable, utc_now, versions
from .publish import publishing
from .runtime import travelling_files
from .source import Source
from .tensor_table import read_table
from .verification import Check, Verification, check_file, verify

__all__ = ["Patched", "Verification", "Written", "patched_config", "read_patched", "unpatch", "verify", "write_patched"]

REPLACED = ("config.json", "README.md")


@dataclass(frozen=True)
class Written:
    """What `write_patched` did: the folder, its record, and how many weight files were placed how."""

    path: Path
    manifest: Manifest
    placed: Mapping[str, int]


def write_patched(
    source: Source,
    plan: Plan,
    out: str | Path,
    *,
    card: str,
    weights: str = "auto",
    force: bool = False,
    command: str = "",
    spec: str | None = None,
    full_hash: bool = False,
) -> Written:
    """Write the patched checkpoint: whole and verified, or not at all.

    Args:
        source: from `resolve_source`.
        plan: what to replace; its family must be the source's model type.
        out: destination folder.
        card: text of README.md.
        weights: how weight files get there: `auto` (reflink, else hard link, else copy), `link` or `copy`.
        force: replace an existing model folder, atomically.
        command: the user's command line; absolute paths in it are shortened before it is recorded.
        spec: the user's YAML spec, recorded likewise.
        full_hash: record sha256 of all weights, however large; else up to 1 GiB in all, above that fingerprints of what
            was linked.

    Raises:
        LostattnError: any mistake of the user, a full disk, or a result that differs from the source.
    """
    from ...patches.family import get_family

    one_of("weights", weights, WEIGHTS)
    if get_family(plan.family).name != source.config["model_type"]:
        raise LostattnError(f"the plan is for '{plan.family}', the source a '{source.config['model_type']}': plan anew")
    with publishing(out, force=force, source=source.path) as (folder, target):
        originals = {name: _original(source, name) for name in REPLACED if name in source.files}
        with bytes_told("writing", _size_of(source)):
            files = _carry(source, folder, weights, full_hash)
        files |= _write_own(folder, _own_files(source, plan, card), originals)
        manifest = Manifest(
            lostattn=lostattn_version(),
            versions=versions(),
            command=portable(command),
            created=utc_now(),
            base={"repo": source.repo, "revision": source.revision, "folder": source.name.rpartition("/")[2]},
            plan=plan.digest,
            files=files,
            originals=originals,
            spec=None if spec is None else portable(spec),
            left_out=dict(source.left_out),
        )
        write_json(folder / MANIFEST, manifest.to_json())
        sync_tree(folder)
        with bytes_told("checking", _size_of(source)):
            _check_written(source, folder, manifest)
    how = [record.placed for name, record in files.items() if is_weights(name)]
    return Written(target, manifest, {kind: how.count(kind) for kind in sorted(set(how))})


def patched_config(config: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """config.json of the patched folder: the source's, with five keys set in place or appended."""
    from ...patches.family import get_family
    from ...patches.saving import auto_map

    family = get_family(plan.family)
    return {
        **config,
        "model_type": f"sap_{family.name}",
        "architectures": [family.model_class.__name__],
        "auto_map": {**(config.get("auto_map") or {}), **auto_map(family.config_class, family.model_class)},
        "sap": plan.to_json(),
    }


def unpatch(directory: str | Path, out: str | Path, *, weights: str = "auto", force: bool = False) -> Path:
    """Write the source back, byte for byte, out of a patched folder alone.

    Args:
        directory: a patched folder.
        out: destination folder.
        weights, force: as for `write_patched`.

    Returns:
        The destination.

    Raises:
        LostattnError: a file has changed since it was patched, or the destination cannot be written.
    """
    one_of("weights", weights, WEIGHTS)
    patched = read_patched(directory)
    records = {name: record for name, record in patched.manifest.files.items() if record.role == "carried"}
    with publishing(out, force=force, source=patched.path) as (folder, target):
        for name in records:
            _place(real_file(patched.path, name), folder / name, weights)
        for name, data in patched.manifest.originals.items():
            _make_folder(folder / name)
            write_bytes(folder / name, data)
        sync_tree(folder)
        _refuse_problems([check_file(folder, name, record) for name, record in records.items()])
    return target


def _carry(source: Source, folder: Path, weights: str, full_hash: bool) -> dict[str, FileRecord]:
    """Place all files of the source but the replaced ones."""
    names = [name for name in source.files if name not in REPLACED]
    with disk_errors("cannot read the source"):
        total = _size_of(source)
    full = full_hash or total <= FULL_LIMIT
    return {name: _carry_one(source, name, folder / name, weights, full) for name in names}


def _size_of(source: Source) -> int:
    """Bytes of all weights."""
    return sum(source.real(name).stat().st_size for name in source.files if is_weights(name))


def _carry_one(source: Source, name: str, target: Path, weights: str, full: bool) -> FileRecord:
    real, digest = source.real(name), Sha256()
    placed = _place(real, target, weights, digest)
    claimed = _claimed(source, real)
    sha256 = digest.hexdigest() if placed == "copy" else sha256_file(target) if full else claimed
    if claimed not in (None, sha256):
        raise LostattnError(f"{name} in the Hub cache is damaged: remove it from the cache and download it again")
    return FileRecord(
        size=target.stat().st_size,
        role="carried",
        placed=placed,
        sha256=sha256,
        fingerprint=fingerprint(target) if is_weights(name) else None,
        tensors=read_table(target, name).digest if name.endswith(".safetensors") else None,
    )


def _place(real: Path, target: Path, weights: str, digest: Any = None) -> str:
    """Only weights are shared with the source: whoever edits a small file later must not edit the source."""
    _make_folder(target)
    return place(real, target, weights if is_weights(target.name) else "copy", digest)


def _make_folder(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)


def _claimed(source: Source, real: Path) -> str | None:
    """sha256 by which the Hub cache calls a large file; small ones go by another digest."""
    in_cache = real.parent == blobs_of(source.path)
    return real.name if in_cache and re.fullmatch(r"[0-9a-f]{64}", real.name) else None


def _original(source: Source, name: str) -> bytes:
    with disk_errors(f"cannot read {name}"):
        return source.real(name).read_bytes()


def _own_files(source: Source, plan: Plan, card: str) -> dict[str, bytes]:
    return {
        **travelling_files(plan.family, plan.mode),
        "config.json": to_json(patched_config(source.config, plan)),
        "README.md": card.encode("utf-8"),
    }


def _write_own(folder: Path, files: Mapping[str, bytes], originals: Mapping[str, bytes]) -> dict[str, FileRecord]:
    for name, data in files.items():
        write_bytes(folder / name, data)
    return {
        name: FileRecord(len(data), "replaced" if name in originals else "added", "written", sha256_bytes(data))
        for name, data in files.items()
    }


def _check_written(source: Source, folder: Path, manifest: Manifest) -> None:
    """Everything as recorded, and everything carried as in the source."""
    checks = []
    for name, record in manifest.files.items():
        shared = record.placed == "link" and os.path.samefile(source.real(name), folder / name)
        checks.append(check_file(folder, name, record, quick=shared or record.placed == "reflink"))
        if record.role == "carried" and not shared:
            checks.append(_same_as_source(source, name, record))
    _refuse_problems(checks)


def _same_as_source(source: Source, name: str, record: FileRecord) -> Check:
    """A copy's digest was taken from the source while it was read; a reflink's from the new file."""
    if record.placed == "copy":
        same = source.real(name).stat().st_size == record.size
        same = same and (record.tensors is None or read_table(source.real(name), name).digest == record.tensors)
        return Check(name, "sha256", same, "" if same else "the source changed while it was read")
    return check_file(source.path, name, record, quick=True)


def _refuse_problems(checks: list[Check]) -> None:
    if wrong := [check for check in checks if not check.ok]:
        raise LostattnError(f"{wrong[0].file}: {wrong[0].problem} (nothing was written): get it again, then retry")
