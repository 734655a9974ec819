"""Sharing and copying one file."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.surgery.checkpoint import place as module
from lostattn.surgery.checkpoint.place import place


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old"
    path.write_bytes(b"weights" * 1000)
    return path


def no_reflink(monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOTSUP) -> None:
    def ioctl(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.fcntl, "ioctl", ioctl)


def no_link(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def link(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)


def test_auto_prefers_reflink(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.fcntl, "ioctl", lambda fd, request, other: os.write(fd, old.read_bytes()))
    assert place(old, tmp_path / "new", "auto") == "reflink"
    assert (tmp_path / "new").read_bytes() == old.read_bytes()
    assert not os.path.samefile(old, tmp_path / "new")


def test_auto_falls_back_to_a_hard_link(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_reflink(monkeypatch)
    assert place(old, tmp_path / "new", "auto") == "link"
    assert os.path.samefile(old, tmp_path / "new")


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP])
def test_auto_falls_back_to_a_copy(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    no_reflink(monkeypatch)
    no_link(monkeypatch, number)
    digest = hashlib.sha256()
    assert place(old, tmp_path / "new", "auto", digest) == "copy"
    assert digest.digest() == hashlib.sha256((tmp_path / "new").read_bytes()).digest()
    with pytest.raises(LostattnError, match="--weights copy"):
        place(old, tmp_path / "newer", "link")
    assert not (tmp_path / "newer").exists()


def test_a_link_is_resolved_first(old: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(old)
    for how in ("link", "copy", "auto"):
        place(tmp_path / "alias", tmp_path / how, how)
        assert not (tmp_path / how).is_symlink()
        assert (tmp_path / how).read_bytes() == old.read_bytes()
    assert not os.path.samefile(old, tmp_path / "copy")


def test_copying_in_blocks_and_short_writes(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(module, "_BLOCK", 1000)
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    digest = hashlib.sha256()
    place(old, tmp_path / "new", "copy", digest)
    assert (tmp_path / "new").read_bytes() == old.read_bytes()
    assert digest.digest() == hashlib.sha256(old.read_bytes()).digest()


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
        (errno.EIO, "disk"),
        (errno.ENODATA, "mend"),
    ],
)
def test_disk_errors_are_one_sentence(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str
) -> None:
    def write(*args: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(LostattnError, match=word) as caught:
        place(old, tmp_path / "new", "copy")
    assert str(caught.value).startswith("cannot write new: ")


def test_a_full_disk_during_reflink_is_not_hidden(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_reflink(monkeypatch, errno.ENOSPC)
    with pytest.raises(LostattnError, match="full"):
        place(old, tmp_path / "new", "auto")


def test_an_existing_target_is_kept(old: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"mine")
    for how in ("auto", "link", "copy"):
        with pytest.raises(LostattnError):
            place(old, tmp_path / "new", how)
    assert (tmp_path / "new").read_bytes() == b"mine"
