"""`lostattn push` against a Hub in this process: what arrives, what is asked, what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import Result
from hub_server.client import READ_TOKEN, SECRETS, as_user, environment, mistake
from hub_server.server import Hub

pytest_plugins = ["hub_server.fixtures"]
ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., Result]
Snapshot = Callable[[Path], dict[str, str]]


def weights(path: Path) -> set[str]:
    return {p.name for p in path.glob("*.safetensors")}


def test_push_pull_and_the_same_logits(hub: Hub, run: Run, folder: Path, tmp_path: Path) -> None:
    found = run("push", folder, "me/tiny", "--private", "--tag", "v1", "--message", "First")
    repo = hub.store.repos["me/tiny"]
    assert found.exit_code == 0 and found.stdout.splitlines() == [f"{hub.url}/me/tiny", f"commit {repo.head}", "tag v1"]
    assert repo.private and repo.tags == {"v1": repo.head} and repo.resolve("main").message == "First"
    assert len(repo.commits) == 2, "the Hub's own first commit, and one for everything"
    assert run("pull", "me/tiny", "back", "--revision", "v1").exit_code == 0
    assert run("verify", "back").exit_code == 0
    logits = [answer(path) for path in (folder, Path("back"))]
    assert torch.equal(*logits)


def answer(path: Path) -> torch.Tensor:
    from lostattn.patches import load_patched

    ids = torch.tensor([[1, 2, *[60] * 4, 5]])
    pixels = torch.ones(1, 3, 16, 16)
    with torch.no_grad():
        return load_patched(path)(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels).logits


def test_the_folder_is_not_touched_and_pushing_again_changes_nothing(
    hub: Hub, run: Run, folder: Path, snapshot: Snapshot
) -> None:
    before = snapshot(folder)
    assert run("push", folder, "me/tiny", "--yes").exit_code == 0
    head = hub.store.repos["me/tiny"].head
    again = run("push", folder, "me/tiny", "--yes", "--tag", "same")
    assert again.exit_code == 0 and "no commit is needed" in again.stderr and head in again.stdout
    assert hub.store.repos["me/tiny"].head == head and hub.store.repos["me/tiny"].tags == {"same": head}
    assert snapshot(folder) == before


def test_dry_run_needs_no_token_and_sends_nothing(
    hub: Hub, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_user(monkeypatch, None)
    found = json.loads(run("push", folder, "me/tiny", "--dry-run", "--json").stdout)
    assert found["commit"] is None and found["new"] and found["totals"]["uploaded"]["files"] == len(found["steps"])
    assert found["totals"]["uploaded"]["bytes"] == sum(step["size"] for step in found["steps"])
    text = run("push", folder, "me/tiny", "--dry-run")
    assert "nothing was sent" in text.stderr and "would be made" in text.stderr and "uploaded" in text.stdout
    assert {entry[0] for entry in hub.faults.log} == {"GET"} and hub.store.repos == {}
    hub.faults.add(".", 503, times=None)
    assert "could not be looked at (503): taken as new" in run("push", folder, "me/tiny", "--dry-run").stderr
    hub.http.server_close()
    assert run("push", folder, "me/tiny", "--dry-run").exit_code == 0


def test_nothing_becomes_public_without_a_yes(
    hub: Hub, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--yes" in mistake(run("push", folder, "me/tiny"))
    assert hub.store.repos == {} and not hub.faults.seen("PUT|POST")
    from lostattn.surgery.commands import push as command

    monkeypatch.setattr(command, "_confirm", lambda yes: lambda question: asked.append(question) or False)
    asked: list[str] = []
    assert "nothing was pushed" in mistake(run("push", folder, "me/tiny"))
    assert "everybody will be able to read" in asked[0] and hub.store.repos == {}
    hub.store.create("me/open")
    assert "nothing was pushed" in mistake(run("push", folder, "me/open")) and len(asked) == 2
    hub.store.create("me/closed", private=True)
    assert run("push", folder, "me/closed").exit_code == 0 and len(asked) == 2
    assert "exists and is public" in mistake(run("push", folder, "me/open", "--private"))


def test_a_terminal_is_asked(folder: Path) -> None:
    from lostattn.surgery.commands.push import _confirm

    assert _confirm(True)("?") is True  # type: ignore[misc]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        assert _confirm(False) is not None
        patch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
        assert _confirm(False) is None


def test_weights_of_the_base_are_copied_on_the_hub(hub: Hub, run: Run, folder: Path, tiny_llava: Path) -> None:
    base = hub.store.fill(
        "org/base", {p.name: p.read_bytes() for p in tiny_llava.iterdir() if p.is_file()}, owner="org"
    )
    arguments = ("push", folder, "me/tiny", "--private", "--base-repo", "org/base")
    planned = json.loads(run(*arguments, "--dry-run", "--json").stdout)
    copied = {step["name"] for step in planned["steps"] if step["action"] == "copied"}
    assert copied == weights(folder) and "organisation" not in planned
    found = run(*arguments)
    assert found.exit_code == 0 and "5 files copied" in found.stderr
    assert not hub.faults.seen("PUT"), "no large file was sent"
    files = hub.store.files("me/tiny")
    assert all(files[name] == (folder / name).read_bytes() for name in copied)
    front = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert front["base_model"] == "org/base" and front["license"] == "apache-2.0"
    assert f"[org/base](https://huggingface.co/org/base) at revision `{base.head}`" in files["README.md"].decode()
    assert json.loads(files["lostattn.json"])["base"] == {
        "repo": "org/base",
        "revision": base.head,
        "folder": "tiny-llava",
    }
    assert run("pull", "me/tiny", "back").exit_code == 0 and run("verify", "back").exit_code == 0


@pytest.mark.parametrize("why", ["no xet", "endpoint", "failed", "refused"])
def test_uploads_where_the_hub_does_not_copy(hub: Hub, run: Run, folder: Path, tiny_llava: Path, why: str) -> None:
    base = hub.store.fill(
        "org/base", {p.name: p.read_bytes() for p in tiny_llava.iterdir() if p.is_file()}, owner="org"
    )
    if why == "no xet":
        base.copies = False
    elif why == "failed":
        base.large.clear()
    else:
        hub.faults.add("lfs-files/duplicate", {"endpoint": 404, "refused": 403}[why])
    found = run("push", folder, "me/tiny", "--private", "--base-repo", "org/base")
    assert found.exit_code == 0 and len(hub.faults.seen("PUT")) == 5
    assert ("does not copy from org/base" in found.stderr) == (why != "no xet")
    assert hub.store.files("me/tiny")["config.json"] == (folder / "config.json").read_bytes()


def test_gated_private_and_wrong_bases(hub: Hub, run: Run, folder: Path, tiny_llava: Path) -> None:
    files = {p.name: p.read_bytes() for p in tiny_llava.iterdir() if p.is_file()}
    gated = hub.store.fill("org/gated", files, owner="org", gated=True)
    hub.store.fill("org/hidden", files, owner="org", private=True)
    hub.store.fill("org/other", {"config.json": b"{}", "model.safetensors": b"other"}, owner="org")
    push = ("push", folder, "me/tiny", "--private", "--base-repo")
    assert "org/gated is gated: accept its terms" in mistake(run(*push, "org/gated"))
    assert "org/hidden is not there, or hidden" in mistake(run(*push, "org/hidden"))
    assert "no weight file of this folder lies in org/other" in mistake(run(*push, "org/other"))
    gated.writers.add("me")
    assert "the base org/gated is gated: a push hands its weights" in run(*push, "org/gated").stderr
    manifest = json.loads((folder / "lostattn.json").read_text())
    manifest["base"] |= {"repo": "org/hidden", "revision": "a" * 40}
    (folder / "lostattn.json").write_text(json.dumps(manifest))
    found = run("push", folder, "me/more", "--private")
    assert found.exit_code == 0 and "the base org/hidden could not be looked at (404)" in found.stderr


def test_what_an_older_push_left_is_removed(hub: Hub, run: Run, folder: Path, demo: Path, tmp_path: Path) -> None:
    from lostattn.surgery import patch_checkpoint

    assert run("push", folder, "me/tiny", "--yes").exit_code == 0
    repo = hub.store.repos["me/tiny"]
    extra = {"figure.png": hub.store.blob(repo, "figure.png", b"p"), "old.bin": hub.store.blob(repo, "old.bin", b"w")}
    repo.add("main", {**repo.resolve("main").tree, **extra}, "by hand")
    patch_checkpoint(demo, tmp_path / "demo", layers="1", heads="all")
    planned = json.loads(run("push", tmp_path / "demo", "me/tiny", "--dry-run", "--json").stdout)
    gone = {step["name"] for step in planned["steps"] if step["action"] == "removed"}
    assert weights(folder) | {"old.bin", "extra/note.txt", "model.safetensors.index.json"} <= gone
    assert run("push", tmp_path / "demo", "me/tiny", "--yes").exit_code == 0
    assert run("pull", "me/tiny", "back").exit_code == 0 and run("verify", "back").exit_code == 0
    assert Path("back/figure.png").read_bytes() == b"p" and not Path("back/old.bin").exists()


def test_branches_and_pull_requests(hub: Hub, run: Run, folder: Path, tiny_llava: Path) -> None:
    plain = hub.store.fill("me/plain", {p.name: p.read_bytes() for p in tiny_llava.iterdir() if p.is_file()})
    head = plain.head
    assert "not patched by lostattn: push to another name" in mistake(run("push", folder, "me/plain", "--yes"))
    found = run("push", folder, "me/plain", "--yes", "--revision", "sap")
    assert found.exit_code == 0 and f"{hub.url}/me/plain/tree/sap" in found.stdout and not hub.faults.seen("PUT")
    assert plain.head == head and "lostattn.json" in plain.resolve("sap").tree
    found = run("push", folder, "me/plain", "--yes", "--create-pr")
    assert "pull request " in found.stdout and plain.head == head and "lostattn.json" in plain.resolve("refs/pr/1").tree
    assert run("pull", "me/plain", "b", "--revision", "sap").exit_code == 0
    hub.store.fill("other/model", {}, owner="other")
    assert run("push", folder, "other/model", "--yes", "--create-pr").exit_code == 0
    assert "may not do this with other/model" in mistake(run("push", folder, "other/model", "--yes"))
    assert "so nothing can be proposed" in mistake(run("push", folder, "me/none", "--create-pr"))


def test_damaged_folders_stay_at_home(hub: Hub, run: Run, folder: Path, small: Path) -> None:
    def refused(word: str) -> None:
        assert word in mistake(run("push", folder, "me/tiny", "--yes"))
        assert hub.store.repos == {}

    shard = folder / sorted(weights(folder))[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    refused("a damaged folder is not pushed")
    shard.unlink()
    refused("is missing")
    (folder / "evil.py").write_text("x = 1")
    refused("missing")
    (folder / "README.md").unlink()
    refused("has no README.md, the model card")
    assert "not patched by lostattn" in mistake(run("push", small, "me/tiny", "--yes"))


def test_other_mistakes(run: Run, hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.store.create("me/there", private=True)
    for arguments, says in (
        (["tiny"], "lacks its owner"),
        (["../x"], "no Hub id"),
        (["a/b/c"], "no Hub id"),
        (["me/t", "--revision", "a..b"], "no git name"),
        (["me/t", "--tag", "-x"], "no git name"),
        (["me/t", "--create-pr", "--revision", "b"], "against main only"),
        (["me/t", "--create-pr", "--tag", "v"], "merged"),
        (["me/t", "--message", " "], "--message is empty"),
        (["me/t", "--base-repo", "me/t"], "the repository itself"),
        (["me/t", "--results", "none.json"], "does not exist"),
        (["me/there", "--timeout", "0"], "--timeout"),
    ):
        assert says in mistake(run("push", folder, *arguments)), arguments
    as_user(monkeypatch, READ_TOKEN)
    assert "write access" in mistake(run("push", folder, "me/there"))
    as_user(monkeypatch, "hf_wrongSECRETtoken")
    assert "does not accept the token" in mistake(run("push", folder, "me/there"))
    as_user(monkeypatch, None)
    assert "there is no token" in mistake(run("push", folder, "me/there"))
    assert len(hub.store.repos["me/there"].commits) == 1


@pytest.mark.slow
def test_as_a_program(hub: Hub, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "lostattn").symlink_to(ROOT)
    base = {**environment(hub, tmp_path / "fresh"), "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    lostattn = [sys.executable, "-m", "lostattn.surgery.cli"]

    def call(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        line = [*lostattn, *map(str, arguments)]
        found = subprocess.run(line, capture_output=True, text=True, env={**base, **env}, cwd=tmp_path)
        assert not any(secret in found.stdout + found.stderr for secret in SECRETS), found.stderr
        return found

    pushed = call("push", folder, "me/tiny", "--private", HF_DEBUG="1", HF_HUB_VERBOSITY="debug")
    assert pushed.returncode == 0 and hub.store.repos["me/tiny"].head in pushed.stdout, pushed.stderr
    pulled = call("pull", "me/tiny", "back")
    assert pulled.returncode == 0 and (tmp_path / "back" / "lostattn.json").is_file(), pulled.stderr
    offline = call("push", folder, "me/tiny", HF_HUB_OFFLINE="1")
    assert offline.returncode == 2 and "HF_HUB_OFFLINE is set" in offline.stderr and os.sep not in offline.stdout
