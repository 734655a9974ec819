"""What is left when a step of writing fails, when a run is killed, and when two runs meet."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.patches.plan import Plan
from lostattn.serving import disk
from lostattn.surgery.checkpoint import place as place_module
from lostattn.surgery.checkpoint import publish
from lostattn.surgery.checkpoint import write as checkpoint
from lostattn.surgery.checkpoint.source import resolve_source
from lostattn.surgery.checkpoint.write import verify, write_patched

Snapshot = Callable[[Path], dict[str, str]]


def write(src: Path, plan: Plan, out: Path, **kwargs: Any) -> checkpoint.Written:
    return write_patched(resolve_source(src), plan, out, **{"card": "# card\n", **kwargs})


def leftovers(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if "lostattn" in name)


STEPS = [
    (os, "fsync"),
    (os, "rename"),
    (os, "mkdir"),
    (os, "link"),
    (os, "write"),
    (checkpoint, "place"),
    (checkpoint, "write_bytes"),
    (checkpoint, "write_json"),
    (checkpoint, "sync_tree"),
    (checkpoint, "check_file"),
    (disk, "sync_folder"),
    (publish, "sync_folder"),
    (publish, "_recover"),
    (place_module, "_copy"),
]


def failing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, turn: int, error: BaseException) -> list[int]:
    """Let that function's turn-th call fail; the list counts calls."""
    real, calls = getattr(owner, name), [0]

    def call(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == turn:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)
    return calls


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["full", "interrupt"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=lambda x: x if isinstance(x, str) else "")
@pytest.mark.parametrize("replace", [False, True])
def test_a_failure_at_any_step_leaves_the_old_or_the_new(
    small: Path,
    plan: Plan,
    tmp_path: Path,
    snapshot: Snapshot,
    replace: bool,
    owner: Any,
    name: str,
    error: BaseException,
) -> None:
    (small / "extra.txt").write_text("extra")
    out = tmp_path / "work" / "out"
    out.parent.mkdir()
    old: dict[str, str] = {}
    if replace:
        write(small, plan, out, card="# old\n")
        old = snapshot(out)
    for turn in turns():
        with pytest.MonkeyPatch.context() as patch:
            calls = failing(patch, owner, name, turn, error)
            with suppress(LostattnError, KeyboardInterrupt):
                write(small, plan, out, card="# new\n", weights="auto", force=replace)
        if out.exists() and (out / "README.md").read_text() == "# new\n":
            assert as_recorded(out)
        else:
            assert snapshot(out) == old
        assert leftovers(out.parent) in ([], [".out.lostattn-old"])
        if calls[0] < turn:
            break  # all calls of a whole run have failed once
        put_back(small, plan, out, replace)
        old = snapshot(out) if replace else {}
    write(small, plan, out, card="# last\n", force=True)
    assert (out / "README.md").read_text() == "# last\n" and leftovers(out.parent) == []


def as_recorded(out: Path) -> bool:
    """Whether every file is as it was written; that one tensor is no LLaVA is not the matter here."""
    return all(check.ok for check in verify(out).checks if check.level != "weights")


def turns() -> Iterator[int]:
    """1, 2, 3, then ever larger steps: calls late in a run are many and alike."""
    turn = 1
    while True:
        yield turn
        turn += 1 + turn // 4


def put_back(small: Path, plan: Plan, out: Path, replace: bool) -> None:
    if replace:
        write(small, plan, out, card="# old\n", force=True)
    else:
        shutil.rmtree(out, ignore_errors=True)


@pytest.mark.parametrize("moment", ["check_file", "_swap", "rename1", "rename2", "rename3"])
def test_a_killed_run_is_cleaned_up_by_the_next(
    small: Path, plan: Plan, tmp_path: Path, snapshot: Snapshot, moment: str
) -> None:
    out = tmp_path / "out"
    write(small, plan, out, card="# old\n")
    old = snapshot(out)
    killed(tmp_path, small, out, moment)
    whole = [path for path in (out, tmp_path / ".out.lostattn-old") if path.exists()]
    assert any(snapshot(path) == old for path in whole) or as_recorded(out)
    write(small, plan, out, card="# last\n", force=True)
    assert (out / "README.md").read_text() == "# last\n" and leftovers(tmp_path) == []


def killed(folder: Path, small: Path, out: Path, moment: str) -> None:
    """A run in a forked process that dies by SIGKILL at that moment."""
    child = os.fork()
    if not child:

        def die(*args: Any, **kwargs: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        patch = pytest.MonkeyPatch()
        if moment.startswith("rename"):
            turn, real, count = int(moment[-1]), os.rename, [0]

            def rename(*args: Any) -> None:
                count[0] += 1
                if count[0] == turn:
                    die()
                real(*args)

            patch.setattr(os, "rename", rename)
        else:
            patch.setattr(publish if moment == "_swap" else checkpoint, moment, die)
        with suppress(BaseException):
            plan = Plan("llava", "uniform", "paper", "raw", "all", 3, 4, 2, heads={1: (0,)})
            write(small, plan, out, card="# new\n", force=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the moment never came"


def test_recovery_puts_the_old_folder_back(small: Path, plan: Plan, tmp_path: Path, snapshot: Snapshot) -> None:
    out = tmp_path / "out"
    write(small, plan, out, card="# old\n")
    old = snapshot(out)
    out.rename(tmp_path / ".out.lostattn-old")
    (tmp_path / ".out.lostattn-new").mkdir()
    with pytest.raises(LostattnError, match="--force"):
        write(small, plan, out)
    assert snapshot(out) == old and leftovers(tmp_path) == []


def test_two_runs_to_one_destination(small: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, inside, go_on = tmp_path / "out", threading.Event(), threading.Event()
    real = checkpoint.sync_tree

    def wait(folder: Path) -> None:
        inside.set()
        assert go_on.wait(30)
        real(folder)

    monkeypatch.setattr(checkpoint, "sync_tree", wait)
    first = threading.Thread(target=write, args=(small, plan, out))
    first.start()
    assert inside.wait(30)
    with pytest.raises(LostattnError, match="another run is writing"):
        write(small, plan, out)
    go_on.set()
    first.join()
    assert as_recorded(out) and leftovers(tmp_path) == []


def test_a_removed_lock_file_is_not_mistaken_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real, calls = tmp_path / "lock", fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            path.unlink()  # the run before gave it up between our open and our lock
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    descriptor = publish._lock(path, tmp_path / "out")
    assert len(calls) == 2 and os.path.samestat(os.fstat(descriptor), path.stat())
    os.close(descriptor)
