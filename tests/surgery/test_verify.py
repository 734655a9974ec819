"""What `verify` and `read_patched` find."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.patches.plan import Plan
from lostattn.surgery.checkpoint.manifest import Manifest
from lostattn.surgery.checkpoint.source import resolve_source
from lostattn.surgery.checkpoint.write import read_patched, verify, write_patched


@pytest.fixture
def out(whole: Path, plan: Plan, tmp_path: Path) -> Path:
    (whole / "sub").mkdir()
    (whole / "sub" / "vocab.txt").write_text("a b c")
    source = resolve_source(whole)
    return write_patched(source, plan, tmp_path / "out", card="# card\n", weights="copy", spec="mode: uniform\n").path


def edit_config(out: Path, change: Callable[[dict], None]) -> None:
    config = json.loads((out / "config.json").read_text())
    change(config)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def failures(out: Path) -> dict[str, str]:
    found = verify(out)
    assert found.ok == (not found.problems)
    return {f"{check.file} {check.level}": check.problem for check in found.problems}


def test_an_untouched_folder(out: Path, plan: Plan) -> None:
    assert failures(out) == {}
    patched = read_patched(out)
    assert patched.plan == plan and patched.path == out
    assert Manifest.from_json(json.loads(json.dumps(patched.manifest.to_json()))) == patched.manifest
    assert patched.manifest.spec == "mode: uniform\n"


@pytest.mark.parametrize("name", ["model.safetensors", "sub/vocab.txt", "README.md", "modeling_sap.py"])
@pytest.mark.parametrize("size", ["same", "longer"])
def test_a_changed_byte(out: Path, name: str, size: str) -> None:
    data = (out / name).read_bytes()
    (out / name).write_bytes(data[:-1] + b"\x01" if size == "same" else data + b"\x01")
    found = failures(out)
    assert list(found) == [f"{name} sha256"]
    assert ("travelling code" in found[f"{name} sha256"]) == name.endswith(".py")


@pytest.mark.parametrize("name", ["model.safetensors", "sub/vocab.txt", "modeling_sap.py"])
def test_a_missing_file(out: Path, name: str) -> None:
    (out / name).unlink()
    assert "missing" in failures(out)[f"{name} sha256"]


def test_a_changed_plan(out: Path) -> None:
    edit_config(out, lambda config: config["sap"].update(blend=0.5))
    assert set(failures(out)) == {"config.json sha256", "config.json plan"}
    edit_config(out, lambda config: config.pop("sap"))
    assert "not a patched checkpoint" in failures(out)["config.json plan"]
    (out / "config.json").write_text("{")
    assert "not JSON" in failures(out)["config.json plan"]
    (out / "config.json").unlink()
    assert set(failures(out)) == {"config.json sha256", "config.json plan"}


def test_extra_files(out: Path) -> None:
    (out / ".gitattributes").write_text("x")
    (out / ".cache").mkdir()
    (out / ".cache" / "x").write_text("x")
    notes = [check for check in verify(out).checks if check.level == "note"]
    assert verify(out).ok and [note.file for note in notes] == [".gitattributes"]
    for name in ("tool.py", "model-2.safetensors", "sub/pytorch_model.bin"):
        (out / name).write_text("x")
        assert "remove it" in failures(out)[f"{name} note"]
        (out / name).unlink()
    (out / "way_out").symlink_to(out.parent)
    assert "symbolic link" in failures(out)["(folder) note"]


def test_a_link_instead_of_a_file(out: Path, small: Path) -> None:
    (out / "model.safetensors").unlink()
    (out / "model.safetensors").symlink_to(small / "model.safetensors")
    assert "leads out" in failures(out)["model.safetensors sha256"]


def test_a_quick_look(out: Path) -> None:
    levels = {check.file: check.level for check in verify(out, quick=True).checks}
    assert levels["model.safetensors"] == "fingerprint" and levels["modeling_sap.py"] == "sha256"
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (out / "model.safetensors").write_bytes(data)
    assert not verify(out, quick=True).ok


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not JSON"),
        ("[]", "format None"),
        ('{"format": 2}', "update lostattn"),
        ('{"format": 1}', "cannot be read"),
        ('{"format": 1, "files": [], "originals": {}}', "cannot be read"),
        ('{"format": 1, "files": {"x": {"sise": 3}}, "originals": {}}', "cannot be read"),
        ("[" * 100_000, "nested"),
    ],
)
def test_a_damaged_record(out: Path, text: str, word: str) -> None:
    (out / "lostattn.json").write_text(text)
    for function in (verify, read_patched):
        with pytest.raises(LostattnError, match=word):
            function(out)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base", []),
        ("versions", 3),
        ("command", None),
        ("plan", 3),
        ("spec", ["x"]),
        ("originals", {}),
        ("originals", {"config.json": {"base64": "*"}}),
        ("originals", {"config.json": {"text": "\ud800"}}),
        ("originals", {"config.json": {}}),
        ("originals", {"config.json": {"text": "{}"}, "plan.py": {"text": "x"}}),
    ],
)
def test_a_record_with_wrong_values(out: Path, key: str, value: object) -> None:
    raw = json.loads((out / "lostattn.json").read_text())
    (out / "lostattn.json").write_text(json.dumps(raw | {key: value}))
    with pytest.raises(LostattnError, match="lostattn.json"):
        read_patched(out)


def test_folders_that_are_not_patched(small: Path, tmp_path: Path) -> None:
    for function in (verify, read_patched):
        with pytest.raises(LostattnError, match="lostattn patch"):
            function(small)
        with pytest.raises(LostattnError, match="not a folder"):
            function(tmp_path / "nowhere")
