"""What the Hub keeps: repositories with commits, branches, tags and pull requests, and large files by their sha256."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from typing import Any

GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
LARGE = (".safetensors", ".bin", ".model", ".h5", ".onnx")
REGULAR_LIMIT = 10 * 2**20


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, code: str = "", message: str = "refused") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class Blob:
    """A file: its bytes, or sha256 and size of a large one."""

    data: bytes = b""
    sha256: str | None = None
    large: int = 0

    @property
    def size(self) -> int:
        return self.large if self.sha256 else len(self.data)

    @property
    def oid(self) -> str:
        data = f"oid sha256:{self.sha256}\nsize {self.large}\n".encode() if self.sha256 else self.data
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Commit:
    oid: str
    parent: str | None
    tree: dict[str, Blob]
    message: str


@dataclass
class Repo:
    name: str
    private: bool = False
    gated: bool = False
    writers: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)  # sha256 of what may be committed here
    copies: bool = True  # whether its large files can be copied to other repositories
    ignored: tuple[str, ...] = ()
    pulls: int = 0

    def resolve(self, revision: str) -> Commit:
        oid = self.refs.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise Refusal(404, "RevisionNotFound", "no such revision")
        return self.commits[oid]

    def add(self, ref: str, tree: dict[str, Blob], message: str) -> Commit:
        parent = self.refs.get(ref)
        text = repr((len(self.commits), parent, sorted((n, b.oid) for n, b in tree.items()), message))
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), parent, tree, message)
        self.commits[commit.oid] = commit
        self.refs[ref] = commit.oid
        return commit

    @property
    def head(self) -> str:
        return self.refs["main"]


class Store:
    """All repositories and objects. Tokens map to users; a token that starts with `hf_read` may only read."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.tokens = {"hf_writeSECRETtoken123": "me", "hf_readSECRETtoken456": "me"}

    def create(self, name: str, *, private: bool = False, owner: str = "me", **settings: Any) -> Repo:
        if name in self.repos:
            raise Refusal(409, message="You already created this model repo")
        repo = Repo(name, private=private, writers={owner}, **settings)
        repo.add("main", {".gitattributes": Blob(GITATTRIBUTES)}, "initial commit")
        self.repos[name] = repo
        return repo

    def fill(self, name: str, files: dict[str, bytes], **settings: Any) -> Repo:
        """A repository with these files."""
        repo = self.create(name, **settings)
        tree = dict(repo.resolve("main").tree)
        for path, data in files.items():
            tree[path] = self.blob(repo, path, data)
        repo.add("main", tree, "files")
        return repo

    def blob(self, repo: Repo, path: str, data: bytes) -> Blob:
        if not is_large(path, len(data)):
            return Blob(data)
        sha256 = hashlib.sha256(data).hexdigest()
        self.objects[sha256] = data
        repo.large.add(sha256)
        return Blob(sha256=sha256, large=len(data))

    def content(self, blob: Blob) -> bytes:
        return self.objects[blob.sha256] if blob.sha256 else blob.data

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Path -> content, for tests."""
        return {path: self.content(blob) for path, blob in self.repos[name].resolve(revision).tree.items()}

    def user(self, token: str | None) -> str | None:
        if token is None:
            return None
        if token not in self.tokens:
            raise Refusal(401, message="Invalid credentials in Authorization header")
        return self.tokens[token]

    def visible(self, name: str, token: str | None) -> Repo:
        user, repo = self.user(token), self.repos.get(name)
        if repo is None or (repo.private and user not in repo.writers):
            raise Refusal(404, "RepoNotFound", "Repository not found")
        return repo

    def readable(self, name: str, token: str | None) -> Repo:
        repo = self.visible(name, token)
        if repo.gated and self.user(token) not in repo.writers:
            raise Refusal(403, "GatedRepo", "Access to model is restricted")
        return repo

    def writable(self, name: str, token: str | None) -> Repo:
        repo = self.visible(name, token)
        if token is None:
            raise Refusal(401, message="Invalid username or password.")
        if str(token).startswith("hf_read") or self.user(token) not in repo.writers:
            raise Refusal(403, message="You don't have the rights to write")
        return repo


def is_large(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(LARGE) or size > REGULAR_LIMIT)
