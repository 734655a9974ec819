"""Pushing while something breaks: the branch's head is the old commit or the whole new one, and the next run goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hub_server.client import mistake
from hub_server.server import Hub
from hub_server.store import Blob

pytest_plugins = ["hub_server.fixtures"]
Run = Callable[..., Result]


@pytest.fixture
def push(hub: Hub, run: Run, folder: Path) -> Callable[..., Result]:
    """To a private repository with one older commit."""
    hub.store.create("me/tiny", private=True)
    return lambda *options: run("push", folder, "me/tiny", *options)


def whole(hub: Hub, folder: Path) -> bool:
    """True for the new commit, False for the old one; anything between fails."""
    files = hub.store.files("me/tiny")
    files.pop(".gitattributes")
    if not files:
        return False
    wanted = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert files.keys() == wanted.keys()
    assert all(files[name] == wanted[name] for name in wanted if name not in ("README.md", "lostattn.json"))
    return True


def sent(hub: Hub) -> int:
    """Large files that have arrived whole."""
    return len(hub.store.repos["me/tiny"].large)


def test_a_cut_upload_is_continued(hub: Hub, push: Callable[..., Result], folder: Path) -> None:
    hub.faults.add("PUT /storage", "cut", times=None, skip=2)
    sentence = mistake(push())
    assert "the connection to the Hub broke" in sentence and "what was sent is not sent again" in sentence
    assert not whole(hub, folder) and sent(hub) == 2
    hub.faults.clear()
    found = push()
    assert found.exit_code == 0 and "on the Hub already and not sent again: 2 files" in found.stderr
    assert len(hub.faults.seen("PUT /storage")) == 3 and whole(hub, folder)
    assert len(hub.store.repos["me/tiny"].commits) == 2


def test_xet_storage_out_of_reach(
    hub: Hub, push: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub of the tests has no Xet, to which the client turns by itself where its library is installed."""
    pytest.importorskip("hf_xet")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    sentence = mistake(push())
    assert "Xet storage could not be reached" in sentence and "HF_HUB_DISABLE_XET=1" in sentence
    assert not whole(hub, folder) and sent(hub) == 0
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    assert push().exit_code == 0 and whole(hub, folder)


def test_a_cut_upload_in_parts_is_continued(hub: Hub, push: Callable[..., Result], folder: Path) -> None:
    hub.part_size = 30_000
    hub.faults.add(r"PUT /storage.*part=2", 500, times=None, skip=1)
    assert "HTTP 500" in mistake(push()) and not whole(hub, folder)
    arrived = sent(hub)
    assert arrived == 1
    hub.faults.clear()
    assert push().exit_code == 0 and whole(hub, folder)
    assert len({path.partition("?")[0] for _, path, *_ in hub.faults.seen("PUT")}) == 5 - arrived


@pytest.mark.parametrize(
    "where", ["whoami", "GET /api/models/me/tiny", "tree", "preupload", "batch", "PUT", "verify", "POST .*/commit/"]
)
@pytest.mark.parametrize("kind", [503, "cut"])
def test_trouble_that_passes(hub: Hub, push: Callable[..., Result], folder: Path, where: str, kind: Any) -> None:
    hub.faults.add(where, kind, times=1)
    found = push()
    if found.exit_code:  # questions are not repeated by the client, and nothing was done yet
        assert "run" in mistake(found) and where in ("whoami", "GET /api/models/me/tiny", "tree")
        found = push()
    assert found.exit_code == 0 and whole(hub, folder)
    assert len(hub.store.repos["me/tiny"].commits) == 2


@pytest.mark.parametrize(
    ("where", "kind", "says"),
    [
        ("whoami", 401, "does not accept the token"),
        ("preupload", 403, "write access"),
        ("PUT", 403, "storage refused"),
        ("batch", 413, "no more room"),
        ("/commit/", 413, "no more room"),
        ("/commit/", 507, "no more room"),
        ("/commit/", 409, "changed by somebody else"),
        ("/commit/", 412, "changed by somebody else"),
        ("/commit/", 429, "fewer requests"),
        ("/commit/", 400, "malformed"),
        ("/commit/", 404, "not there"),
        ("/commit/", 402, "paid plan"),
        ("/commit/", 418, "HTTP 418"),
        ("preupload", 500, "HTTP 500"),
        ("whoami", "garbage", "not what a Hub gives"),
        ("preupload", "garbage", "not what a Hub gives"),
        ("batch", "garbage", "not what a Hub gives"),
        ("/commit/", "garbage", "not what a Hub gives"),
        ("validate-yaml", "garbage", "not what a Hub gives"),
        ("validate-yaml", 400, "malformed|README"),
        ("PUT", "slow", "did not answer in time"),
        ("/commit/", "slow", "did not answer in time"),
        ("preupload", "slow", "did not answer in time"),
        ("GET /api/models", "slow", "did not answer in time"),
    ],
)
def test_trouble_that_stays(
    hub: Hub, push: Callable[..., Result], folder: Path, where: str, kind: Any, says: str
) -> None:
    hub.faults.add(where, kind, times=None, seconds=0.6)
    sentence = mistake(push("--timeout", "0.3"))
    assert any(word in sentence for word in says.split("|")), sentence
    assert not whole(hub, folder) and len(hub.store.repos["me/tiny"].commits) == 1
    hub.faults.clear()
    assert push().exit_code == 0 and whole(hub, folder)


def test_a_full_account_that_is_only_forbidden(hub: Hub, push: Callable[..., Result]) -> None:
    hub.faults.add("batch", 403, times=None, message="Private repository storage limit reached SECRETWORD")
    assert "no more room" in mistake(push())


def test_the_answer_to_the_commit_is_lost(hub: Hub, push: Callable[..., Result], folder: Path) -> None:
    hub.faults.add("POST .*/commit/", "lost")
    found = push()
    repo = hub.store.repos["me/tiny"]
    assert found.exit_code == 0 and whole(hub, folder) and len(repo.commits) == 2 and repo.head in found.stdout


def test_somebody_commits_meanwhile(
    hub: Hub, push: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, due = hub.store.repos["me/tiny"], hub.faults.due

    def commit_first(method: str, path: str) -> Any:
        if "/commit/" in path and len(repo.commits) == 1:
            repo.add("main", {**repo.resolve("main").tree, "theirs.txt": Blob(b"x")}, "theirs")
        return due(method, path)

    monkeypatch.setattr(hub.faults, "due", commit_first)
    assert "changed by somebody else meanwhile: run again" in mistake(push())
    assert repo.resolve("main").message == "theirs"
    assert push().exit_code == 0 and hub.store.files("me/tiny")["theirs.txt"] == b"x"


def test_a_gitignore_does_not_make_half_a_model(hub: Hub, push: Callable[..., Result], folder: Path) -> None:
    hub.store.repos["me/tiny"].ignored = ("config.json",)
    assert "a .gitignore in me/tiny keeps config.json out" in mistake(push())
    assert not whole(hub, folder)


def test_a_new_repository_stays_empty_until_the_commit(hub: Hub, run: Run, folder: Path) -> None:
    hub.faults.add("/commit/", 500, times=None)
    assert "no commit was made" in mistake(run("push", folder, "me/tiny", "--private"))
    assert not whole(hub, folder) and hub.store.repos["me/tiny"].private
    hub.faults.clear()
    assert run("push", folder, "me/tiny", "--private").exit_code == 0
    assert not hub.faults.seen("PUT") and whole(hub, folder)


def test_killed_at_any_request(hub: Hub, push: Callable[..., Result], folder: Path, tmp_path: Path) -> None:
    ends, number = [], 1
    while not ends or ends[-1] == "killed":
        ends.append("killed" if killed(hub, folder, number) else "done")
        done = whole(hub, folder)
        assert ends[-1] == "killed" or done
        number += 1
    assert len(ends) > 5 and len(hub.store.repos["me/tiny"].commits) == 2
    assert push().exit_code == 0 and "no commit is needed" in push().stderr


def killed(hub: Hub, folder: Path, number: int) -> bool:
    """A push in a forked process that dies by SIGKILL when it is about to send its number-th request."""
    child = os.fork()
    if not child:
        with suppress(BaseException):
            from huggingface_hub import close_session
            from huggingface_hub.utils import _http
            from lostattn.surgery.hub.push import PushOptions
            from lostattn.surgery.hub.push import push as send

            real, count = _http.hf_request_event_hook, [0]

            def hook(request: Any) -> Any:
                count[0] += 1
                if count[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(request)

            _http.hf_request_event_hook = hook  # type: ignore[assignment]
            close_session()
            send(folder, PushOptions("me/tiny", private=True))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
