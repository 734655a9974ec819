"""What a repository on the Hub holds at one commit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...patches.errors import LostattnError
from ..checkpoint.folder import MAX_FILES, inside_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class RemoteFile:
    """One file: bytes, git object id, and for large files sha256 and whether the Hub can copy it to another repository."""

    size: int
    oid: str
    sha256: str | None = None
    copyable: bool = False

    def holds(self, size: int, sha256: str, content: Path | bytes) -> bool:
        """True if that content, whose sha256 is known, is what the repository holds."""
        if self.size != size:
            return False
        return self.sha256 == sha256 if self.sha256 is not None else self.oid == git_oid(content)


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit; `commit` is None for a repository or branch that does not exist yet.

    Attributes:
        repo, commit, private, gated: of the repository.
        files: path -> file.
        card: the front matter of its README.md, as the Hub read it.
    """

    repo: str
    commit: str | None
    private: bool = False
    gated: bool = False
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)


def look(api: HfApi, repo: str, revision: str | None = None) -> Snapshot:
    """The repository at a branch, tag or commit. Raises what the client raises, LostattnError for hostile paths."""
    info = api.model_info(repo, revision=revision)
    if not info.sha:
        raise KeyError("the Hub names no commit")
    card = info.card_data.to_dict() if info.card_data is not None else {}
    return Snapshot(repo, info.sha, bool(info.private), bool(info.gated), list_files(api, repo, info.sha), card)


def list_files(api: HfApi, repo: str, commit: str) -> dict[str, RemoteFile]:
    """Path -> file at a commit. Raises LostattnError for paths that lead out of a folder, and for too many."""
    from huggingface_hub.hf_api import RepoFile

    results: dict[str, RemoteFile] = {}
    for entry in api.list_repo_tree(repo, recursive=True, revision=commit):
        if not isinstance(entry, RepoFile):
            continue
        if not inside_name(entry.path):
            raise LostattnError(
                f"{repo} holds a file named {entry.path[:80]!r}, which leads elsewhere: do not trust it"
            )
        lfs = entry.lfs
        results[entry.path] = RemoteFile(
            entry.size, entry.blob_id, None if lfs is None else lfs.sha256, bool(getattr(entry, "xet_hash", None))
        )
        if len(results) > MAX_FILES:
            raise LostattnError(f"{repo} holds more than {MAX_FILES} files: that is no model")
    return results


def git_oid(content: Path | bytes) -> str:
    """Git's name for a file's content, hex."""
    if isinstance(content, bytes):
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    digest = hashlib.sha1(b"blob %d\0" % content.stat().st_size)
    with content.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
