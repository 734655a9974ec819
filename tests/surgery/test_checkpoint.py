"""Writing, replacing, undoing a patched checkpoint; and what is left when any step fails."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.patches.plan import Plan
from lostattn.surgery.bench_patch import bench_patch
from lostattn.surgery.checkpoint import write as checkpoint
from lostattn.surgery.checkpoint.runtime import travelling_files
from lostattn.surgery.checkpoint.source import resolve_source
from lostattn.surgery.checkpoint.write import read_patched, unpatch, verify, write_patched

Snapshot = Callable[[Path], dict[str, str]]
ROOT = Path(checkpoint.__file__).parents[2]


def write(src: Path, plan: Plan, out: Path, **kwargs: Any) -> checkpoint.Written:
    return write_patched(resolve_source(src), plan, out, **{"card": "# card\n", **kwargs})


def leftovers(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if "lostattn" in name)


@pytest.mark.parametrize("weights", ["auto", "link", "copy"])
def test_everything_but_two_files_is_carried_byte_for_byte(
    src: Path, plan: Plan, tmp_path: Path, snapshot: Snapshot, weights: str
) -> None:
    out, before = tmp_path / "deep" / "er" / "out", snapshot(src)
    written = write(src, plan, out, weights=weights)
    after = snapshot(out)
    assert written.path == out and sum(written.placed.values()) == 5
    carried = set(before) - {"config.json", "README.md"}
    assert {name: before[name] for name in carried} == {name: after[name] for name in carried}
    assert set(after) - set(before) == {*travelling_files("llava", "uniform"), "lostattn.json"}
    assert not any(path.is_symlink() for path in out.rglob("*"))
    shared = {name for name in carried if os.path.samefile(src / name, out / name)}
    linked = {name for name, record in written.manifest.files.items() if record.placed == "link"}
    assert shared == linked and all(name.endswith(".safetensors") for name in shared)
    assert snapshot(src) == before and leftovers(tmp_path) == []
    assert verify(out).ok and read_patched(out).plan == plan


def test_the_config_keeps_its_keys_and_their_order(small: Path, plan: Plan, tmp_path: Path) -> None:
    write(small, plan, tmp_path / "out")
    text = (tmp_path / "out" / "config.json").read_text()
    config = json.loads(text)
    assert list(config) == ["model_type", "zeta", "alpha", "architectures", "auto_map", "sap"]
    assert config["model_type"] == "sap_llava" and config["architectures"] == ["SapLlavaForConditionalGeneration"]
    assert config["auto_map"] == {
        "AutoConfig": "modeling_sap.SapLlavaConfig",
        "AutoModelForImageTextToText": "modeling_sap.SapLlavaForConditionalGeneration",
    }
    assert Plan.from_json(config["sap"]) == plan and '\n  "zeta": 1' in text


@pytest.mark.parametrize("weights", ["auto", "copy"])
def test_unpatch_gives_the_source_back(src: Path, plan: Plan, tmp_path: Path, snapshot: Snapshot, weights: str) -> None:
    (src / "config.json").write_bytes((src / "config.json").read_bytes() + b"\r\n \n")
    (src / "README.md").write_bytes(b"\xff\xfe\x00not text")
    write(src, plan, tmp_path / "out")
    assert unpatch(tmp_path / "out", tmp_path / "back", weights=weights) == tmp_path / "back"
    assert snapshot(tmp_path / "back") == snapshot(src)
    with pytest.raises(LostattnError, match="--force"):
        unpatch(tmp_path / "out", tmp_path / "back")
    unpatch(tmp_path / "out", tmp_path / "back", force=True)
    assert snapshot(tmp_path / "back") == snapshot(src) and leftovers(tmp_path) == []


def test_unpatch_without_a_readme(small: Path, plan: Plan, tmp_path: Path, snapshot: Snapshot) -> None:
    write(small, plan, tmp_path / "out")
    unpatch(tmp_path / "out", tmp_path / "back")
    assert snapshot(tmp_path / "back") == snapshot(small)


@pytest.mark.parametrize("name", ["model.safetensors", "extra.txt"])
def test_unpatch_refuses_what_has_changed(small: Path, plan: Plan, tmp_path: Path, name: str) -> None:
    (small / "extra.txt").write_text("extra")
    write(small, plan, tmp_path / "out", weights="copy")
    path = tmp_path / "out" / name
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(LostattnError, match=f"{name}.*nothing was written"):
        unpatch(tmp_path / "out", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("name", ["../evil", "/absolute/evil", "a//b", "a/../../b", ""])
def test_a_hostile_record_writes_nowhere(small: Path, plan: Plan, tmp_path: Path, name: str) -> None:
    write(small, plan, tmp_path / "out")
    path = tmp_path / "out" / "lostattn.json"
    raw = json.loads(path.read_text())
    raw["files"][name] = raw["files"]["model.safetensors"]
    path.write_text(json.dumps(raw))
    with pytest.raises(LostattnError, match="do not trust"):
        unpatch(tmp_path / "out", tmp_path / "back")
    raw["files"].pop(name)
    raw["originals"][name] = {"text": "evil"}
    path.write_text(json.dumps(raw))
    with pytest.raises(LostattnError):
        unpatch(tmp_path / "out", tmp_path / "back")


def test_the_record_holds_no_path_of_this_machine(src: Path, plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(src, plan, out, command=f"lostattn patch {src} '{out}' --spec=~/my/s.yaml", spec=f"src: {src}\nlayers: 1-2\n")
    for path in out.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes()
    manifest = read_patched(out).manifest
    assert manifest.command == "lostattn patch src 'out' --spec=s.yaml"
    assert manifest.spec == "src: src\nlayers: 1-2\n"
    assert manifest.base == {"repo": None, "revision": None, "folder": "src"}
    assert {"python", "torch", "transformers", "safetensors", "platform"} <= set(manifest.versions)


def test_wrong_requests(small: Path, plan: Plan, tmp_path: Path) -> None:
    other = Plan("qwen2_5_vl", "uniform", "paper", "raw", "all", 3, 4, 2)
    with pytest.raises(LostattnError, match="plan anew"):
        write(small, other, tmp_path / "out")
    with pytest.raises(LostattnError, match="auto, link, copy"):
        write(small, plan, tmp_path / "out", weights="symlink")
    with pytest.raises(LostattnError, match="auto, link, copy"):
        unpatch(small, tmp_path / "out", weights="symlink")
    with pytest.raises(LostattnError, match="not patched by lostattn"):
        unpatch(small, tmp_path / "out")
    with pytest.raises(LostattnError, match="already patched"):
        write(small, plan, tmp_path / "out")
        resolve_source(tmp_path / "out")


def test_destinations_that_overlap_the_source(small: Path, plan: Plan, tmp_path: Path, snapshot: Snapshot) -> None:
    before = snapshot(small)
    for out in (small, small / "out", tmp_path, small / ".." / "small", Path("/")):
        with pytest.raises(LostattnError):
            write(small, plan, out, force=True)
    (tmp_path / "alias").symlink_to(small)
    with pytest.raises(LostattnError, match="symbolic link"):
        write(small, plan, tmp_path / "alias", force=True)
    with pytest.raises(LostattnError, match="overlap"):
        write(small, plan, tmp_path / "alias" / "out")
    assert snapshot(small) == before


def test_an_empty_folder_may_be_the_destination(whole: Path, plan: Plan, tmp_path: Path) -> None:
    for name in ("out", "forced"):
        (tmp_path / name).mkdir()
        write(whole, plan, tmp_path / name, force=name == "forced")
        assert verify(tmp_path / name).ok
    unpatched = tmp_path / "unpatched"
    unpatched.mkdir()
    unpatch(tmp_path / "out", unpatched)
    assert (unpatched / "config.json").read_bytes() == (whole / "config.json").read_bytes()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / ".hidden").touch()
    with pytest.raises(LostattnError, match="--force"):
        write(whole, plan, tmp_path / "used")
    assert leftovers(tmp_path) == []


def test_what_force_may_replace(
    small: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("{}")
    with pytest.raises(LostattnError, match="--force"):
        write(small, plan, out)
    write(small, plan, out, force=True)
    first = snapshot(out)
    with pytest.raises(LostattnError, match="--force"):
        write(small, plan, out, card="# new\n")
    assert snapshot(out) == first
    write(small, plan, out, card="# new\n", force=True)
    assert (out / "README.md").read_text() == "# new\n" and leftovers(tmp_path) == []

    def kept(folder: Path, word: str) -> None:
        before = snapshot(tmp_path)
        with pytest.raises(LostattnError, match=word):
            write(small, plan, folder, force=True)
        assert snapshot(tmp_path) == before

    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    kept(home, "does not take it for a model folder")
    (home / "config.json").write_text("{}")
    monkeypatch.setenv("HOME", str(home))
    kept(home, "your home")
    (out / ".git").mkdir()
    kept(out, "git")
    kept(home / "thesis.tex", "not a folder")
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.chdir(home)
    kept(home, "you work in")


def test_damage_while_writing_is_found(
    small: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoint.place

    def place(source: Path, target: Path, how: str, digest: Any) -> str:
        done = real(source, target, how, digest)
        target.write_bytes(target.read_bytes()[:-1] + b"X")
        return done

    monkeypatch.setattr(checkpoint, "place", place)
    with pytest.raises(LostattnError, match="has changed"):
        write(small, plan, tmp_path / "out", weights="copy")
    assert not (tmp_path / "out").exists()


def test_large_linked_weights_are_fingerprinted(
    small: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "FULL_LIMIT", 10)
    for name, kwargs, level in (
        ("a", {}, "fingerprint"),
        ("b", {"full_hash": True}, "sha256"),
        ("c", {"weights": "copy"}, "sha256"),
    ):
        write(small, plan, tmp_path / name, **kwargs)
        levels = {check.file: check.level for check in verify(tmp_path / name).checks}
        assert levels["model.safetensors"] == level
    levels = {check.file: check.level for check in verify(tmp_path / "b", quick=True).checks}
    assert levels["model.safetensors"] == "fingerprint"


def test_time_and_memory_do_not_grow_with_the_weights(tmp_path: Path) -> None:
    if not hasattr(os, "link"):
        pytest.skip("no hard links here")
    figures = bench_patch(10.0, parent=tmp_path)
    assert set(figures["placed"]) <= {"link", "reflink"} and figures["files"] == 3
    assert figures["seconds"] < 20 and figures["memory_mb"] < 300
    assert os.listdir(tmp_path) == []


def test_the_benchmark_tells_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LostattnError, match="temporary checkpoint"):
        bench_patch(0.3, parent=tmp_path / "nowhere")
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback\nLostattnError: the mend")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(LostattnError, match="the mend"):
        bench_patch(0.3, parent=tmp_path)
    assert os.listdir(tmp_path) == []


def test_no_writing_code_imports_torch_tensors() -> None:
    """Weights are never loaded: no module of the writer names safetensors' loaders or torch."""
    modules = sorted((ROOT / "surgery" / "checkpoint").glob("*.py"))
    assert {"write", "place", "source", "weights", "tensor_table"} <= {path.stem for path in modules}
    for path in modules:
        text = path.read_text()
        assert "import torch" not in text and "safe_open" not in text and "pickle." not in text, path.name


def test_hash_of_the_hub_cache_is_used_and_checked(small: Path, plan: Plan, tmp_path: Path) -> None:
    import hashlib
    import shutil

    root = tmp_path / "models--org--tiny"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    shutil.copy(small / "config.json", snapshot)
    name = hashlib.sha256((small / "model.safetensors").read_bytes()).hexdigest()
    shutil.copy(small / "model.safetensors", root / "blobs" / name)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{name}")
    written = write(snapshot, plan, tmp_path / "out")
    assert written.manifest.base == {"repo": "org/tiny", "revision": "0" * 40, "folder": "tiny"}
    assert os.path.samefile(root / "blobs" / name, tmp_path / "out" / "model.safetensors")
    (root / "blobs" / name).rename(root / "blobs" / ("f" * 64))
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{'f' * 64}")
    with pytest.raises(LostattnError, match="damaged"):
        write(snapshot, plan, tmp_path / "other")
    assert not (tmp_path / "other").exists()
