"""`lostattn.json`: what a patched folder holds, where it came from, and what is needed to undo it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...patches.plan import Plan
from ...patches.side_files import CARD, is_side_file
from ...serving.disk import read_json
from .folder import inside_name, list_files, real_file
from .hashing import sha256_file

MANIFEST = "lostattn.json"
FORMAT = 1
ROLES = ("carried", "added", "replaced")


@dataclass(frozen=True)
class FileRecord:
    """One file of the patched folder.

    Attributes:
        size: bytes.
        role: `carried` from the source, `added`, or `replaced` (the source's own is among the originals).
        placed: `reflink`, `link`, `copy` or `written`.
        sha256: of all bytes; None for weights that were only fingerprinted.
        fingerprint: see `hashing.fingerprint`; weights only.
        tensors: digest of the tensor table; safetensors only.
    """

    size: int
    role: str
    placed: str
    sha256: str | None = None
    fingerprint: str | None = None
    tensors: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The record of one patched folder.

    Attributes:
        lostattn, versions, command, created: provenance.
        base: `repo`, `revision` and `folder` of the source (folder: a name, never a path).
        plan: sha256 of the plan's canonical JSON.
        files: relative path -> record, without `lostattn.json` itself.
        originals: name -> bytes of files of the source that were replaced.
        spec: the user's YAML, if there was one.
        saved: written by `save_pretrained` of a patched model; files of its processor and tokenizer are not on record.
        left_out: what of the source stayed at home, and so does not come back with `unpatch` -> why.
    """

    lostattn: str
    versions: Mapping[str, str]
    command: str
    created: str
    base: Mapping[str, str | None]
    plan: str
    files: Mapping[str, FileRecord]
    originals: Mapping[str, bytes] = field(default_factory=dict)
    spec: str | None = None
    saved: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON; absent parts are left out."""
        raw = _present({f.name: getattr(self, f.name) for f in fields(self)})
        raw = {k: v for k, v in raw.items() if k != "saved" or v}
        raw["versions"], raw["base"] = dict(self.versions), dict(self.base)
        raw["left_out"] = dict(self.left_out)
        raw["files"] = {name: _present(asdict(record)) for name, record in sorted(self.files.items())}
        raw["originals"] = {name: _pack(data) for name, data in sorted(self.originals.items())}
        return {"format": FORMAT} | raw

    @classmethod
    def from_json(cls, raw: Any) -> Manifest:
        """Read what `to_json` wrote, trusting nothing. Raises LostattnError."""
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            result = raw.get("format") if isinstance(raw, dict) else None
            raise LostattnError(f"{MANIFEST} has format {result}, this lostattn reads {FORMAT}: update lostattn")
        try:
            values = {f.name: raw[f.name] for f in fields(cls) if f.name in raw}
            values["files"] = {name: FileRecord(**record) for name, record in raw["files"].items()}
            values["originals"] = {name: _unpack(packed) for name, packed in raw["originals"].items()}
            manifest = cls(**values)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise LostattnError(f"{MANIFEST} cannot be read ({type(error).__name__}): patch the source again") from None
        manifest._check()
        return manifest

    def _check(self) -> None:
        texts = (self.lostattn, self.command, self.created, self.plan, self.spec or "")
        if not all(isinstance(text, str) for text in texts) or not all(
            isinstance(table, dict) for table in (self.versions, self.base, self.left_out)
        ):
            raise LostattnError(f"{MANIFEST} holds values of the wrong kind: patch the source again")
        for name, record in self.files.items():
            if not inside_name(name) or record.role not in ROLES:
                raise LostattnError(f"{MANIFEST} has a wrong entry for {name[:80]!r}: do not trust this folder")
        replaced = {name for name, record in self.files.items() if record.role == "replaced"}
        if "config.json" not in self.originals or not set(self.originals) <= replaced:
            raise LostattnError(f"{MANIFEST} lacks the original config.json: patch the source again")


@dataclass(frozen=True)
class Patched:
    """A patched folder: where it is, its plan and its record."""

    path: Path
    plan: Plan
    manifest: Manifest


def read_patched(directory: str | Path) -> Patched:
    """Plan and record of a patched folder.

    Raises:
        LostattnError: no such folder, not patched by lostattn, or a damaged plan or record.
    """
    path = Path(directory).expanduser()
    manifest = read_manifest(path)
    return Patched(path.resolve(), read_plan(path.resolve()), manifest)


def read_manifest(path: Path) -> Manifest:
    """The record alone. Raises LostattnError."""
    if not path.is_dir():
        raise LostattnError(f"{path} is not a folder: give the folder that 'lostattn patch' wrote")
    if not (path / MANIFEST).exists():
        raise LostattnError(f"{path} was not patched by lostattn (no {MANIFEST}): make one with 'lostattn patch'")
    manifest = Manifest.from_json(read_json(real_file(path.resolve(), MANIFEST), MANIFEST))
    return _with_side_files(path.resolve(), manifest) if manifest.saved else manifest


def _with_side_files(root: Path, manifest: Manifest) -> Manifest:
    """The record of a folder that `save_pretrained` wrote, with the card, processor and tokenizer that lie there now."""
    result = dict(manifest.files)
    for name in list_files(root):
        if name not in result and (name == CARD or is_side_file(name)):
            path = real_file(root, name)
            role = "added" if name == CARD else "carried"
            result[name] = FileRecord(path.stat().st_size, role, "written", sha256_file(path))
    return replace(manifest, files=result)


def read_plan(path: Path) -> Plan:
    """The plan in a resolved folder's config.json. Raises LostattnError."""
    config = read_json(real_file(path, "config.json"), "config.json")
    return Plan.from_json(config.get("sap") if isinstance(config, dict) else None)


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _pack(data: bytes) -> dict[str, str]:
    """Bytes in JSON: text where it is UTF-8."""
    try:
        return {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def _unpack(packed: Mapping[str, str]) -> bytes:
    if "text" in packed:
        return packed["text"].encode("utf-8")
    try:
        return base64.b64decode(packed["base64"], validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
