"""`lostattn pull` against a Hub in this process: whole and checked, or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hub_server.client import as_user, mistake
from hub_server.server import Hub
from hub_server.store import Blob

pytest_plugins = ["hub_server.fixtures"]
Run = Callable[..., Result]
Snapshot = Callable[[Path], dict[str, str]]
STAGING = ".tiny.lostattn-pull"


@pytest.fixture
def tiny(hub: Hub, made: Path) -> str:
    """The patched folder on the Hub, as a push leaves it."""
    hub.store.fill("me/tiny", {p.relative_to(made).as_posix(): p.read_bytes() for p in made.rglob("*") if p.is_file()})
    return "me/tiny"


def here() -> list[str]:
    return sorted(os.listdir())


def test_a_patched_repository(hub: Hub, tiny: str, run: Run, made: Path, snapshot: Snapshot) -> None:
    found = run("pull", tiny)
    assert found.exit_code == 0 and found.stdout.strip() == str(Path("tiny").resolve())
    assert "every file is as it was written" in found.stderr
    files = snapshot(Path("tiny"))
    assert files.pop(".gitattributes") and files == snapshot(made) and here() == ["tiny"]
    assert "exists: choose another destination" in mistake(run("pull", tiny))
    told = json.loads(run("pull", tiny, "--force", "--json").stdout)
    assert told["patched"] and told["commit"] == hub.store.repos[tiny].head and here() == ["tiny"]
    assert all(not authorised for *_, authorised in hub.faults.seen("/storage/")), "the token stays on the Hub"


def test_a_plain_repository(hub: Hub, run: Run, tiny_llava: Path) -> None:
    files = {p.name: p.read_bytes() for p in tiny_llava.iterdir() if p.is_file()}
    hub.store.fill("org/plain", {**files, "pytorch_model.bin": b"pickled", "a[1]*.txt": b"odd"}, owner="org")
    found = run("pull", "org/plain", "x/y/plain")
    assert found.exit_code == 0 and "not patched by lostattn" in found.stderr and "left out 1 file " in found.stderr
    got = {p.name: p.read_bytes() for p in Path("x/y/plain").iterdir() if p.name != ".gitattributes"}
    assert got == {**files, "a[1]*.txt": b"odd"}


def test_revisions(hub: Hub, tiny: str, run: Run) -> None:
    repo = hub.store.repos[tiny]
    first = repo.commits[repo.head]
    repo.refs["next"] = repo.head
    repo.add("next", {**first.tree, "more.txt": Blob(b"more")}, "more")
    repo.tags["v1"] = first.oid
    assert run("pull", tiny, "a", "--revision", "next").exit_code == 0 and Path("a/more.txt").exists()
    assert run("pull", tiny, "b", "--revision", "v1").exit_code == 0 and not Path("b/more.txt").exists()
    assert "no such revision" in mistake(run("pull", tiny, "c", "--revision", "v2"))
    assert "no git name" in mistake(run("pull", tiny, "c", "--revision", "../v2"))


def test_who_may_not(hub: Hub, tiny: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.store.fill("org/gated", {"config.json": b"{}"}, owner="org", gated=True)
    hub.store.repos[tiny].private = True
    assert "org/gated is gated: accept its terms" in mistake(run("pull", "org/gated"))
    assert "is not there, or hidden" in mistake(run("pull", "me/none"))
    assert "lacks its owner" in mistake(run("pull", "gpt2"))
    as_user(monkeypatch, None)
    assert "is not there, or hidden" in mistake(run("pull", tiny))
    as_user(monkeypatch, "hf_wrongSECRETtoken")
    assert "does not accept the token" in mistake(run("pull", tiny))
    assert here() == []


def test_a_cut_is_continued(hub: Hub, tiny: str, run: Run, made: Path, snapshot: Snapshot) -> None:
    hub.faults.add("GET /storage/", "cut", times=None, skip=2)
    sentence = mistake(run("pull", tiny))
    assert "the connection to the Hub broke" in sentence and "kept for the next run" in sentence
    assert here() == [STAGING] and len(list(Path(STAGING).glob("*.safetensors"))) == 2
    hub.faults.clear()
    found = run("pull", tiny)
    assert found.exit_code == 0 and "here from an interrupted run: " in found.stderr
    assert len(hub.faults.seen("GET /storage/")) == 3, "only what was missing"
    assert here() == ["tiny"] and set(snapshot(made).items()) <= set(snapshot(Path("tiny")).items())


def test_a_cut_that_passes_is_not_noticed(hub: Hub, tiny: str, run: Run) -> None:
    hub.faults.add("GET /storage/", "cut", times=2)
    hub.faults.add("HEAD /me/tiny/resolve", 503, times=2)
    hub.faults.add("GET /me/tiny/resolve/.*config", 429)
    assert run("pull", tiny).exit_code == 0 and run("verify", "tiny").exit_code == 0


def test_the_repository_moved_between_two_runs(hub: Hub, tiny: str, run: Run) -> None:
    hub.faults.add("GET /storage/", "cut", times=None, skip=2)
    mistake(run("pull", tiny))
    hub.faults.clear()
    repo = hub.store.repos[tiny]
    tree = {name: blob for name, blob in repo.resolve("main").tree.items() if name != ".gitattributes"}
    repo.add("main", tree, "without it")
    assert run("pull", tiny).exit_code == 0 and not Path("tiny/.gitattributes").exists() and here() == ["tiny"]


@pytest.mark.parametrize(
    ("where", "kind", "says"),
    [
        ("GET /api/models", 500, "HTTP 500"),
        ("GET /api/models", "garbage", "not what a Hub gives"),
        ("GET /api/models", 401, "does not accept the token"),
        ("GET /api/models", 429, "fewer requests"),
        ("GET /api/models", "slow", "did not answer in time"),
        ("GET .*/tree/", 502, "HTTP 502"),
        ("GET .*/tree/", "garbage", "not what a Hub gives"),
        ("HEAD .*safetensors", 404, "not there"),
        ("GET /storage/", 403, "may not"),
        ("GET /storage/", 500, "HTTP 500"),
        ("GET /storage/", "slow", "in time"),
    ],
)
def test_faults_leave_the_destination_as_it_was(
    hub: Hub, tiny: str, run: Run, where: str, kind: Any, says: str, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    run("pull", tiny)
    before = snapshot(Path("tiny"))
    hub.faults.add(where, kind, times=None, seconds=2)
    assert says in mistake(run("pull", tiny, "--force", "--timeout", "0.5"))
    assert snapshot(Path("tiny")) == before and set(here()) <= {"tiny", STAGING}
    hub.faults.clear()
    assert run("pull", tiny, "--force").exit_code == 0 and here() == ["tiny"]


def test_the_hub_is_away(hub: Hub, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.http.shutdown()  # else a request may still be taken, and then broken off
    hub.http.server_close()
    assert "cannot be reached" in mistake(run("pull", "me/tiny"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in mistake(run("pull", "me/tiny"))
    assert here() == []


def test_damaged_and_hostile_repositories(hub: Hub, tiny: str, run: Run) -> None:
    repo = hub.store.repos[tiny]
    good = dict(repo.resolve("main").tree)
    shard = next(name for name in good if name.endswith(".safetensors"))

    def refused(word: str, **files: Blob) -> None:
        repo.add("main", {**good, **{k.replace("__", "."): v for k, v in files.items()}}, "bad")
        assert word in mistake(run("pull", tiny))
        assert here() in ([], [STAGING])

    refused("not part of what was patched", evil__py=Blob(b"x = 1"))
    refused("has changed", config__json=Blob(b"{}"))
    refused("format", lostattn__json=Blob(b'{"format": 99}'))
    refused("not JSON", lostattn__json=Blob(b"{"))
    refused("has changed", **{shard.replace(".", "__"): hub.store.blob(repo, shard, b"x" * good[shard].size)})
    for name in ("../out.txt", "/etc/out.txt", "a/../../out.txt", "a\\..\\out.txt"):
        refused("leads elsewhere", **{name.replace(".", "__"): Blob(b"x")})
    repo.add("main", good, "good again")
    shutil.rmtree(STAGING, ignore_errors=True)
    assert run("pull", tiny).exit_code == 0


def test_bytes_that_changed_on_the_way(hub: Hub, run: Run) -> None:
    repo = hub.store.fill("me/plain", {"config.json": b"{}", "model.safetensors": b"right"})
    oid = str(repo.resolve("main").tree["model.safetensors"].sha256)
    hub.store.objects[oid] = b"wrong"
    assert "model.safetensors arrived damaged: run again" in mistake(run("pull", "me/plain"))
    hub.store.objects[oid] = b"right"
    assert run("pull", "me/plain").exit_code == 0 and Path("plain/model.safetensors").read_bytes() == b"right"


def test_no_room(hub: Hub, tiny: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from lostattn.surgery.hub import pull

    monkeypatch.setattr(pull.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 10))
    assert "10 B are free" in mistake(run("pull", tiny))
    Path("file").touch()
    assert "exists and is not a folder" in mistake(run("pull", tiny, "file"))
