"""Fixtures of the tests that talk to a Hub; a module takes them by `pytest_plugins = ["hub_server.fixtures"]`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from .client import SECRETS, connect
from .server import Hub

Run = Callable[..., Result]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running Hub that this process talks to, as a user who may write."""
    with Hub().running() as found:
        connect(found, monkeypatch, tmp_path / "home")
        yield found


@pytest.fixture(scope="module")
def made(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patched folder of five shards. Never write into it: take `folder`."""
    from lostattn.surgery import patch_checkpoint

    out = tmp_path_factory.mktemp("push") / "patched"
    patch_checkpoint(tiny_llava, out, layers="1", heads="all", mode="uniform", weights="copy")
    return out


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "patched"))


@pytest.fixture
def run(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command in an empty folder: no traceback and no secret in what it prints."""
    from lostattn.surgery.cli import main

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def invoke(*arguments: object, **kwargs: Any) -> Result:
        found = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="lostattn", **kwargs)
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exc_info
        assert not any(secret in found.output for secret in (*SECRETS, "Traceback")), found.output
        return found

    return invoke
