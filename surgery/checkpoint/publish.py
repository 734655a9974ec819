"""Publishing a folder: it is built under a temporary name beside its destination and renamed when it is whole.

Beside the destination `x` there may be, while a run lasts or after it was killed, `.x.lostattn-new` (unfinished),
`.x.lostattn-old` (the folder being replaced) and `.x.lostattn-lock`. The next run to `x` puts them in order.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors, sync_folder
from .manifest import MANIFEST


@contextmanager
def publishing(out: str | Path, *, force: bool, source: Path) -> Iterator[tuple[Path, Path]]:
    """Give (temporary folder to fill, destination); on success it takes the destination's name, else it vanishes.

    Args:
        out: destination; unless `force` it must not exist, or be an empty folder.
        force: replace an existing model folder; it stays in place until the new one is whole.
        source: resolved folder that is read meanwhile; the destination may not overlap with it.

    Raises:
        LostattnError: the destination exists, overlaps, is in use by another run, or the disk refuses.
    """
    target = _destination(out, source)
    check_replaceable(target, force)
    with disk_errors(f"cannot write {target}"), _parents(target), _locked(target):
        _recover(target)
        check_replaceable(target, force)
        temporary = _sibling(target, "new")
        try:
            temporary.mkdir()
            yield temporary, target
            check_replaceable(target, force)
            _swap(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def check_replaceable(target: Path, force: bool) -> None:
    """Raise LostattnError unless the destination is free or empty, or `force` is given and it is plainly a model folder."""
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise LostattnError(f"{target} exists and is not a folder: choose another destination")
    with disk_errors(f"cannot look into {target}"):
        names, here = set(os.listdir(target)), Path.cwd()
    if names and not force:
        raise LostattnError(f"{target} exists: choose another destination, or replace it with --force")
    if target in (Path.home().resolve(), here, *here.parents):
        raise LostattnError(f"{target} is your home or holds the folder you work in: choose another destination")
    if ".git" in names:
        raise LostattnError(f"{target} is a git repository, whose history would be lost: choose another destination")
    if names and not names & {MANIFEST, "config.json"}:
        raise LostattnError(
            f"{target} holds no config.json, so --force does not take it for a model folder: choose another destination"
        )


def _destination(out: str | Path, source: Path) -> Path:
    path = Path(out).expanduser()
    if path.is_symlink():
        raise LostattnError(f"{out} is a symbolic link: give the folder itself as destination")
    with disk_errors(f"cannot use {out}"):
        target = path.resolve()
    if not target.name:
        raise LostattnError(f"{out} is the root of the file system: choose another destination")
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise LostattnError(f"the destination {out} and the source overlap: choose a destination outside the source")
    return target


def _sibling(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.lostattn-{what}")


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make missing parent folders; take them away again if the run fails."""
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in made:
            try:
                folder.rmdir()
            except OSError:
                break
        raise


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    path = _sibling(target, "lock")
    descriptor = _lock(path, target)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is given up: who waits for it sees that the file is gone
        os.close(descriptor)


def _lock(path: Path, target: Path) -> int:
    """An open file that is locked and still carries its name; a killed run's lock is free at once."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _still_named(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise LostattnError(f"another run is writing {target}: wait for it or choose another destination") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _still_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _recover(target: Path) -> None:
    """Put in order what a killed run left."""
    temporary, aside = _sibling(target, "new"), _sibling(target, "old")
    if temporary.exists():
        shutil.rmtree(temporary)
    if aside.exists():
        if os.path.lexists(target):
            shutil.rmtree(aside)
        else:
            os.rename(aside, target)


def _swap(temporary: Path, target: Path) -> None:
    aside = _sibling(target, "old")
    try:
        if os.path.lexists(target):
            os.rename(target, aside)
        os.rename(temporary, target)
    except BaseException:
        if os.path.lexists(aside) and not os.path.lexists(target):
            os.rename(aside, target)
        raise
    sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)
