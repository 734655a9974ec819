"""The Hub's answers: one function per kind of request, found by method and path."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any
from urllib.parse import parse_qs, unquote

import yaml

from .store import Blob, Refusal, Repo, Store, is_large

REPO = r"(?P<repo>[^/]+/[^/]+)"
ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = []


@dataclass
class Request:
    """What came in, and where this Hub and its storage can be reached."""

    store: Store
    token: str | None
    body: bytes
    query: str
    hub: str
    storage: str
    part_size: int | None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def wants_pr(self) -> bool:
        return "create_pr" in parse_qs(self.query)


def route(method: str, path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        ROUTES.append((method, re.compile(path), function))
        return function

    return register


def answer(method: str, path: str, request: Request) -> Any:
    """JSON of the answer. Raises Refusal."""
    for wanted, pattern, function in ROUTES:
        if wanted == method and (match := pattern.fullmatch(path)):
            with request.store.lock:
                return function(request, **{k: unquote(v) for k, v in match.groupdict().items() if v is not None})
    raise Refusal(404, message=f"no route for {method} {path}")


@route("GET", "/api/whoami-v2")
def whoami(request: Request) -> Any:
    if request.token is None:
        raise Refusal(401, message="Invalid username or password.")
    return {"type": "user", "name": request.store.user(request.token)}


@route("POST", "/api/repos/create")
def create(request: Request) -> Any:
    wanted = request.json
    user = request.store.user(request.token)
    if user is None or str(request.token).startswith("hf_read"):
        raise Refusal(403, message="You don't have the rights to create a model")
    if (wanted.get("organization") or user) != user:
        raise Refusal(403, message="You don't have the rights to create a model under this namespace")
    name = f"{wanted.get('organization') or user}/{wanted['name']}"
    request.store.create(name, private=wanted.get("visibility") == "private", owner=user)
    return {"url": f"{request.hub}/{name}"}


@route("GET", rf"/api/models/{REPO}(?:/revision/(?P<revision>.+))?")
def info(request: Request, repo: str, revision: str = "main") -> Any:
    found = request.store.visible(repo, request.token)
    commit = found.resolve(revision)
    card = commit.tree.get("README.md")
    front = card.data.decode().split("---\n") if card else []
    return {
        "id": repo,
        "sha": commit.oid,
        "private": found.private,
        "gated": "auto" if found.gated else False,
        "cardData": yaml.safe_load(front[1]) if len(front) > 2 else None,
        "siblings": [{"rfilename": name} for name in commit.tree],
    }


@route("GET", rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)")
def tree(request: Request, repo: str, revision: str) -> Any:
    found = request.store.readable(repo, request.token)
    return [_entry(found, name, blob) for name, blob in sorted(found.resolve(revision).tree.items())]


def _entry(repo: Repo, name: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": blob.size, "oid": blob.oid}
    if blob.sha256:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}
        if repo.copies:
            entry["xetHash"] = hashlib.sha256(f"xet {blob.sha256}".encode()).hexdigest()
    return entry


@route("POST", rf"/api/models/{REPO}/paths-info/(?P<revision>[^/]+)")
def paths_info(request: Request, repo: str, revision: str) -> Any:
    found = request.store.readable(repo, request.token)
    there = found.resolve(revision).tree
    wanted = parse_qs(request.body.decode())["paths"]
    return [_entry(found, name, there[name]) for name in wanted if name in there]


@route("POST", rf"/api/models/{REPO}/preupload/(?P<revision>[^/]+)")
def preupload(request: Request, repo: str, revision: str) -> Any:
    store = request.store
    found = store.visible(repo, request.token) if request.wants_pr else store.writable(repo, request.token)
    there = found.resolve(revision).tree
    return {"files": [_mode(found, there, file) for file in request.json["files"]]}


def _mode(repo: Repo, there: dict[str, Blob], file: dict[str, Any]) -> dict[str, Any]:
    blob = there.get(file["path"])
    return {
        "path": file["path"],
        "uploadMode": "lfs" if is_large(file["path"], file["size"]) else "regular",
        "shouldIgnore": file["path"] in repo.ignored,
        "oid": (blob.sha256 or blob.oid) if blob else None,
    }


@route("POST", rf"/{REPO}\.git/info/lfs/objects/batch")
def batch(request: Request, repo: str) -> Any:
    found = request.store.visible(repo, request.token)
    if request.store.user(request.token) is None:
        raise Refusal(401, message="Invalid username or password.")
    return {
        "transfer": "basic",
        "objects": [_upload(request, found, o["oid"], o["size"]) for o in request.json["objects"]],
    }


def _upload(request: Request, repo: Repo, oid: str, size: int) -> dict[str, Any]:
    if oid in repo.large:
        return {"oid": oid, "size": size}
    at = f"{request.storage}/storage/{repo.name}/{oid}"
    if request.part_size is None or size <= request.part_size:
        upload: dict[str, Any] = {"href": f"{at}?X-Signature=SIGNEDADDRESS"}
    else:
        parts = ceil(size / request.part_size)
        header = {str(n): f"{at}?part={n}&X-Signature=SIGNEDADDRESS" for n in range(1, parts + 1)}
        upload = {
            "href": f"{request.hub}/complete/{repo.name}/{oid}",
            "header": {"chunk_size": str(request.part_size), **header},
        }
    verify = {"href": f"{request.hub}/verify/{repo.name}"}
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}


@route("PUT", rf"/storage/{REPO}/(?P<oid>[0-9a-f]+)")
def put(request: Request, repo: str, oid: str) -> Any:
    if request.token is not None:
        raise Refusal(400, message="a token was sent to the storage")
    part = parse_qs(request.query).get("part")
    if part:
        request.store.objects[f"{oid}-{part[0]}"] = request.body
        return {"etag": hashlib.md5(request.body).hexdigest()}
    return _keep(request.store, repo, oid, request.body)


@route("POST", rf"/complete/{REPO}/(?P<oid>[0-9a-f]+)")
def complete(request: Request, repo: str, oid: str) -> Any:
    numbers = [part["partNumber"] for part in request.json["parts"]]
    return _keep(request.store, repo, oid, b"".join(request.store.objects.pop(f"{oid}-{n}") for n in numbers))


def _keep(store: Store, repo: str, oid: str, data: bytes) -> Any:
    if hashlib.sha256(data).hexdigest() != oid:
        raise Refusal(400, message="not what was announced")
    store.objects[oid] = data
    store.repos[repo].large.add(oid)
    return {}


@route("POST", rf"/verify/{REPO}")
def verify(request: Request, repo: str) -> Any:
    wanted = request.json
    if len(request.store.objects.get(wanted["oid"], b"")) != wanted["size"]:
        raise Refusal(404, message="not there")
    return {}


@route("POST", rf"/api/models/{REPO}/lfs-files/duplicate")
def duplicate(request: Request, repo: str) -> Any:
    source = request.store.readable(repo, request.token)
    target = request.store.writable(request.json["target"]["name"], request.token)
    for file in request.json["files"]:
        if file["sha256"] not in source.large:
            return {"failed": [{"sha256": file["sha256"], "error": "not there"}]}
        target.large.add(file["sha256"])
    return {"failed": []}


@route("POST", "/api/validate-yaml")
def validate(request: Request) -> Any:
    front = request.json["content"].split("---\n")
    if not isinstance(yaml.safe_load(front[1]) if len(front) > 2 else None, dict):
        raise Refusal(400, message="bad metadata")
    return {"errors": [], "warnings": []}


@route("POST", rf"/api/models/{REPO}/commit/(?P<revision>[^/]+)")
def commit(request: Request, repo: str, revision: str) -> Any:
    store = request.store
    found = store.visible(repo, request.token) if request.wants_pr else store.writable(repo, request.token)
    lines = [json.loads(line) for line in request.body.splitlines()]
    head, ref = found.resolve(revision), revision
    if (parent := lines[0]["value"].get("parentCommit")) and parent != head.oid:
        raise Refusal(412, message="A commit has happened since. Please refresh and try again.")
    if request.wants_pr:
        found.pulls += 1
        ref = f"refs/pr/{found.pulls}"
        found.refs[ref] = head.oid
    made = found.add(ref, _apply(found, dict(head.tree), lines[1:], store), lines[0]["value"]["summary"])
    link = {"pullRequestUrl": f"{request.hub}/{repo}/discussions/{found.pulls}"} if request.wants_pr else {}
    return {"commitUrl": f"{request.hub}/{repo}/commit/{made.oid}", "commitOid": made.oid, **link}


def _apply(repo: Repo, files: dict[str, Blob], lines: list[dict[str, Any]], store: Store) -> dict[str, Blob]:
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]))
        elif line["key"] == "lfsFile":
            if value["oid"] not in repo.large:
                raise Refusal(400, message=f"LFS object {value['oid']} was not uploaded")
            files[value["path"]] = Blob(sha256=value["oid"], large=len(store.objects[value["oid"]]))
        elif files.pop(value["path"], None) is None:
            raise Refusal(404, "EntryNotFound", "A file with this name doesn't exist")
    return files


@route("POST", rf"/api/models/{REPO}/(?P<kind>branch|tag)/(?P<name>.+)")
def name_commit(request: Request, repo: str, kind: str, name: str) -> Any:
    found = request.store.writable(repo, request.token)
    wanted = json.loads(request.body or b"{}")
    names, new = (found.refs, name) if kind == "branch" else (found.tags, wanted.get("tag"))
    if new in names:
        raise Refusal(409, message="Reference already exists")
    names[new] = found.resolve(wanted.get("startingPoint", "main") if kind == "branch" else name).oid
    return {}
