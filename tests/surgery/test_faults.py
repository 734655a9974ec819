"""The file side under attack: killed at any write, full and read-only disks, runs that meet, hostile folders."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hub_server.client import connect, mistake
from hub_server.server import Hub
from lostattn.patches.errors import LostattnError
from lostattn.surgery import patch_checkpoint
from lostattn.surgery.checkpoint.write import unpatch, verify
from lostattn.surgery.cli import main
from lostattn.surgery.hub.pull import pull

Snapshot = Callable[[Path], dict[str, str]]
Act = Callable[[Path], object]
WRITES = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


@pytest.fixture
def act(
    request: pytest.FixtureRequest, tiny_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Act]:
    """What writes a model folder: patch, unpatch or pull; each replaces an older folder."""
    command = request.param
    made = tmp_path / "source" / "made"
    patch_checkpoint(tiny_llava, made, layers="1", heads="all", mode="uniform", weights="copy")
    if command == "patch":
        yield lambda out: patch_checkpoint(
            tiny_llava, out, layers="2", heads="all", mode="uniform", weights="copy", force=True
        )
    elif command == "unpatch":
        yield lambda out: unpatch(made, out, weights="copy", force=True)
    else:
        with Hub().running() as hub:
            connect(hub, monkeypatch, tmp_path / "home")
            hub.store.fill(
                "me/x", {p.relative_to(made).as_posix(): p.read_bytes() for p in made.rglob("*") if p.is_file()}
            )
            yield lambda out: pull("me/x", out, force=True)


ACTS = pytest.mark.parametrize("act", ["patch", "unpatch", "pull"], indirect=True)


def in_a_child(work: Callable[[], object]) -> int:
    """Wait status of a forked process that does the work; exit code 3 for one sentence, 4 for anything else."""
    child = os.fork()
    if not child:
        code = 4
        with suppress(BaseException):
            try:
                work()
                code = 0
            except LostattnError:
                code = 3
        os._exit(code)
    return os.waitpid(child, 0)[1]


def dying(act: Act, out: Path, number: int) -> bool:
    """Run in a child that dies by SIGKILL right before its number-th change of the disk; False if it had fewer."""

    def work() -> None:
        count = 0

        def audit(event: str, args: tuple[Any, ...]) -> None:
            nonlocal count
            wrote = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if wrote or event in WRITES:
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        act(out)

    status = in_a_child(work)
    assert os.WIFSIGNALED(status) or status == 0, status
    return os.WIFSIGNALED(status)


@pytest.mark.slow
@ACTS
def test_killed_before_any_write(act: Act, tiny_llava: Path, tmp_path: Path, snapshot: Snapshot) -> None:
    out = tmp_path / "work" / "out"
    patch_checkpoint(tiny_llava, out, layers="1", heads="all", mode="uniform", weights="copy")
    old = snapshot(out)
    keep = shutil.copytree(out, tmp_path / "keep")
    act(tmp_path / "wanted")
    new, number, deaths = snapshot(tmp_path / "wanted"), 1, 0
    while dying(act, out, number):
        deaths += 1
        state = [snapshot(path) for path in (out, out.with_name(".out.lostattn-old")) if path.exists()]
        assert any(same(s, old) or same(s, new) for s in state), f"nothing whole after write {number}"
        if out.exists():
            assert same(snapshot(out), old) or same(snapshot(out), new), f"half a folder after write {number}"
        act(out)
        assert os.listdir(out.parent) == ["out"] and same(snapshot(out), new)
        shutil.rmtree(out)
        shutil.copytree(keep, out)
        number += 1 + number // 3
    assert deaths > 5


def same(one: dict[str, str], other: dict[str, str]) -> bool:
    """Equal but for the record's time of day."""
    return {**one, "lostattn.json": ""} == {**other, "lostattn.json": ""}


@contextmanager
def small_disk(folder: Path, size: str, options: str = "") -> Iterator[Path]:
    """A file system of that size, where this user may mount one."""
    folder.mkdir()
    options = f"size={size}{options}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@ACTS
@pytest.mark.parametrize("size", ["4k", "64k", "200k", "400k"])
def test_a_full_disk(act: Act, tmp_path: Path, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lostattn.surgery.hub import pull as pulling

    monkeypatch.setattr(
        pulling.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 0, 2**40)
    )  # filled meanwhile
    with small_disk(tmp_path / "disk", size) as disk:
        with pytest.raises(LostattnError, match="the disk is full: free some space"):
            act(disk / "out")
        assert set(os.listdir(disk)) <= {".out.lostattn-pull"}
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        act(disk / "out")
        assert os.listdir(disk) == ["out"]


@ACTS
def test_a_read_only_disk(act: Act, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m", ",ro") as disk:
        with pytest.raises(LostattnError, match="read-only"):
            act(disk / "out")
        assert os.listdir(disk) == []


@pytest.mark.parametrize("act", ["patch", "unpatch"], indirect=True)
def test_files_may_not_grow_that_large(act: Act, tmp_path: Path) -> None:
    for limit in (10, 1_000, 50_000):

        def work(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            act(tmp_path / "work" / "out")

        assert in_a_child(work) == 3 << 8
        assert not (tmp_path / "work").exists()


@ACTS
def test_many_runs_to_one_destination(act: Act, tmp_path: Path, snapshot: Snapshot) -> None:
    out = tmp_path / "work" / "out"
    out.parent.mkdir()
    act(tmp_path / "wanted")
    children = []
    for _ in range(4):
        if not (child := os.fork()):
            status = in_a_child(lambda: act(out))
            os._exit(os.waitstatus_to_exitcode(status))
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert set(codes) <= {0, 3} and 0 in codes, codes
    assert same(snapshot(out), snapshot(tmp_path / "wanted")) and os.listdir(out.parent) == ["out"]


def spoil_index(folder: Path, shard: str) -> None:
    index = folder / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"][next(iter(raw["weight_map"]))] = shard
    index.write_text(json.dumps(raw))


def first_shard(folder: Path) -> Path:
    return min(folder.glob("model-*.safetensors"))


def swap_for_link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def head(path: Path, length: int, header: bytes = b"") -> None:
    path.write_bytes(length.to_bytes(8, "little") + header)


def huge_header(path: Path) -> None:
    head(path, 100_000_001)
    os.truncate(path, 200_000_000)


TWICE = b'{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "index names ../x": (lambda f: spoil_index(f, "../x.safetensors"), "no plain file name"),
    "index names /etc/x": (lambda f: spoil_index(f, "/etc/x.safetensors"), "no plain file name"),
    "index names a missing shard": (lambda f: spoil_index(f, "gone.safetensors"), "which is missing"),
    "index nested 10,000 deep": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map":' * 10_000),
        "nested too deeply",
    ),
    "config.json not JSON": (lambda f: (f / "config.json").write_text("{'a': 1}"), "not JSON"),
    "config.json nested 10,000 deep": (lambda f: (f / "config.json").write_text('{"a":' * 10_000), "nested too deeply"),
    "config.json a link out": (lambda f: swap_for_link(f / "config.json", Path("/etc/passwd")), "leads out"),
    "shard a link out": (lambda f: swap_for_link(first_shard(f), Path("/etc/passwd")), "leads out"),
    "shard a link to itself": (lambda f: swap_for_link(first_shard(f), Path(first_shard(f).name)), "circle"),
    "folder a link out": (lambda f: (f / "more").symlink_to("/etc"), "symbolic link to a folder"),
    "shard with a lying header": (lambda f: head(first_shard(f), 2**40), "cut short"),
    "shard with a 100 MB header": (lambda f: huge_header(first_shard(f)), "100 MB"),
    "duplicate tensor names": (lambda f: head(first_shard(f), len(TWICE), TWICE), "twice"),
    "header nested 10,000 deep": (lambda f: head(first_shard(f), 50_000, b'{"a":' * 10_000), "nested too deeply"),
    "a pipe among the files": (lambda f: os.mkfifo(f / "pipe"), "not a regular file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sources(src: Path, tmp_path: Path, name: str) -> None:
    spoil, says = HOSTILE[name]
    spoil(src)
    before = sorted(os.listdir(tmp_path))
    for command in (["plan", src], ["patch", src, tmp_path / "out"]):
        found = CliRunner().invoke(main, [*map(str, command), "--heads", "all"])
        assert says in mistake(found) and isinstance(found.exception, SystemExit)
    assert sorted(os.listdir(tmp_path)) == before


def record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads((folder / "lostattn.json").read_text())
    change(raw)
    (folder / "lostattn.json").write_text(json.dumps(raw))


def rename_record(folder: Path, name: str) -> None:
    record(folder, lambda raw: raw["files"].update({name: raw["files"]["modeling_sap.py"]}))


PATCHED: dict[str, tuple[Callable[[Path], object], str]] = {
    "record names ../x": (lambda f: rename_record(f, "../x"), "do not trust this folder"),
    "record names /etc/passwd": (lambda f: rename_record(f, "/etc/passwd"), "do not trust this folder"),
    "original outside": (
        lambda f: record(f, lambda raw: raw["originals"].update({"../x": {"text": ""}})),
        "lostattn.json",
    ),
    "record nested 10,000 deep": (lambda f: (f / "lostattn.json").write_text('{"a":' * 10_000), "nested too deeply"),
    "record of 17 MB": (lambda f: (f / "lostattn.json").write_text(" " * 17 * 2**20), "16 MB"),
    "shard a link out": (lambda f: swap_for_link(first_shard(f), Path("/etc/passwd")), "leads out"),
    "shard missing": (lambda f: first_shard(f).unlink(), "missing"),
}


@pytest.mark.parametrize("name", PATCHED)
def test_hostile_patched_folders(tiny_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / "folder"
    patch_checkpoint(tiny_llava, folder, layers="1", heads="all", mode="uniform", weights="copy")
    spoil, says = PATCHED[name]
    spoil(folder)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for command in (["unpatch", folder, tmp_path / "out"], ["push", folder, "me/x", "--dry-run"]):
        found = CliRunner().invoke(main, [str(a) for a in command])
        assert says in mistake(found) and isinstance(found.exception, SystemExit), command
    assert os.listdir(tmp_path) == ["folder"]
    with suppress(LostattnError):
        assert not verify(folder).ok
