"""Resolving and checking a source, against honest and hostile folders."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.surgery.checkpoint.source import resolve_source
from lostattn.surgery.checkpoint.tensor_table import read_table

INDEX = "model.safetensors.index.json"
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_local_folder(tiny_llava: Path) -> None:
    source = resolve_source(tiny_llava)
    assert source.repo is None and source.revision is None and source.name == "tiny-llava"
    assert source.files == tuple(sorted(source.files)) and "extra/note.txt" in source.files
    assert len(source.weights) == 5 and source.config["model_type"] == "llava"


def test_bookkeeping_folders_are_not_part_of_it(small: Path) -> None:
    for name in (".git", ".cache", "__pycache__"):
        (small / name).mkdir()
        (small / name / "x").write_text("x")
    assert resolve_source(small).files == ("config.json", "model.safetensors")


def refused(folder: Path, *words: str, **kwargs: Any) -> None:
    """One sentence, with those words."""
    with pytest.raises(LostattnError) as caught:
        resolve_source(folder, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and ": " in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not JSON"),
        (b"[]", "model_type"),
        (b'{"model_type": 3}', "model_type"),
        (b"{}", "model_type"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested"),
        (b"[" * 100_000, "nested"),
        (b'{"model_type": "llava", "x": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"model_type": "sap_llava"}', "unpatch"),
        (b'{"model_type": "llava", "sap": {}}', "unpatch"),
        (b'{"model_type": "llava", "auto_map": {}}', "--allow-code"),
        (b'{"model_type": "llava", "text_config": [{"auto_map": {}}]}', "--allow-code"),
        (b'{"model_type": "llava", "transformers_weights": "../x.safetensors"}', "transformers_weights"),
        (b'{"model_type": "llava", "transformers_weights": 3}', "transformers_weights"),
        (b"{" + b" " * (16 * 2**20) + b"}", "16 MB"),
    ],
)
def test_a_wrong_config(small: Path, text: bytes, word: str) -> None:
    (small / "config.json").write_bytes(text)
    refused(small, word)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("modeling_sap.py", "rename"),
        ("plan.py", "--allow-code"),
        ("lostattn.json", "unpatch"),
        ("modeling_x.py", "--allow-code"),
        ("deep/er/tool.py", "--allow-code"),
    ],
)
def test_files_that_may_not_come_along(small: Path, name: str, word: str) -> None:
    (small / name).parent.mkdir(parents=True, exist_ok=True)
    (small / name).write_text("x = 1\n")
    refused(small, word)


def test_code_comes_along_if_the_user_says_so(small: Path) -> None:
    (small / "modeling_x.py").write_text("x = 1\n")
    (small / "tokenizer_config.json").write_text('{"auto_map": {}}')
    (small / "plan.py").write_text("x = 1\n")
    assert {"modeling_x.py", "plan.py"} <= set(resolve_source(small, allow_code=True).files)
    (small / "modeling_sap.py").write_text("x = 1\n")
    refused(small, "modeling_sap.py", allow_code=True)


def test_missing_parts(small: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "does not exist")
    refused(small / "config.json", "is a file")
    refused(small, "--revision", revision="main")
    (small / "model.safetensors").rename(small / "pytorch_model.bin")
    refused(small, "pickled", "save_pretrained")
    (small / "pytorch_model.bin").unlink()
    refused(small, "safetensors")
    (small / "config.json").unlink()
    refused(small, "config.json")


@pytest.mark.parametrize(
    ("header", "data", "length", "word"),
    [
        ({"w": F32}, b"1234567", None, "holds 7 bytes"),
        ({"w": F32}, b"123456789", None, "holds 9 bytes"),
        ({"w": F32 | {"data_offsets": [1, 9]}}, b"123456789", None, "hole"),
        ({"w": F32, "v": F32 | {"data_offsets": [4, 12]}}, b"x" * 12, None, "overlaps"),
        ({"w": F32, "v": F32}, b"x" * 8, None, "overlaps"),
        ({"w": F32 | {"shape": [3]}}, b"x" * 8, None, "wrongly"),
        ({"w": F32 | {"shape": [-2]}}, b"x" * 8, None, "wrongly"),
        ({"w": F32 | {"shape": [True, 2]}}, b"x" * 8, None, "wrongly"),
        ({"w": F32 | {"data_offsets": [8, 0]}}, b"x" * 8, None, "wrongly"),
        ({"w": F32 | {"data_offsets": [0, 8, 8]}}, b"x" * 8, None, "wrongly"),
        ({"w": F32 | {"more": 1}}, b"x" * 8, None, "wrongly"),
        ({"w": F32 | {"dtype": "F33"}}, b"x" * 8, None, "F33"),
        ({"w": []}, b"", None, "wrongly"),
        ([], b"", None, "table"),
        (
            b'{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
            b"",
            None,
            "twice",
        ),
        (b'{"w":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}', b"", None, "twice"),
        (b'{"w":' * 10_000, b"", None, "nested"),
        (b"\xff\xff", b"", None, "not JSON"),
        (b"{}", b"", 2**63, "cut short"),
        (b"{}", b"", 3, "cut short"),
    ],
)
def test_lying_headers(
    small: Path, safetensors_file: Callable[..., None], header: Any, data: bytes, length: int | None, word: str
) -> None:
    safetensors_file(small / "model.safetensors", header, data, length)
    refused(small, word)


def test_a_header_of_more_than_100_mb_is_not_read(small: Path) -> None:
    with (small / "model.safetensors").open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)
    refused(small, "100 MB")


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_file_too_short_for_a_header(small: Path, size: int) -> None:
    (small / "model.safetensors").write_bytes(b"\0" * size)
    refused(small, "cut short")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), honest=st.booleans())
def test_any_bytes_are_a_table_or_one_sentence(small: Path, data: bytes, honest: bool) -> None:
    path = small / "model.safetensors"
    path.write_bytes((len(data).to_bytes(8, "little") if honest else b"") + data)
    try:
        read_table(path, "x")
    except LostattnError as error:
        assert "\n" not in str(error)


def test_tables_agree_with_safetensors(tiny_llava: Path) -> None:
    from safetensors import safe_open

    for name in resolve_source(tiny_llava).weights:
        table = read_table(tiny_llava / name, name)
        with safe_open(tiny_llava / name, "pt") as file:
            assert set(file.keys()) == set(table.tensors)
            for key in file.keys():  # noqa: SIM118 - not a dict
                part = file.get_slice(key)
                row = table.tensors[key]
                assert (part.get_dtype(), tuple(part.get_shape())) == (row.dtype, row.shape)


@pytest.mark.parametrize(
    "shard",
    [
        "../x.safetensors",
        "/etc/x.safetensors",
        "a/b.safetensors",
        "..",
        "",
        ".",
        "x.bin",
        "a\\b.safetensors",
        "x\0.safetensors",
        7,
        None,
        ["x.safetensors"],
    ],
)
def test_hostile_shard_names(small: Path, shard: Any) -> None:
    (small / INDEX).write_text(json.dumps({"weight_map": {"w": shard}}))
    refused(small, "no plain file name")


def test_index_and_shards_must_agree(src: Path) -> None:
    index = json.loads((src / INDEX).read_text())
    name, shard = next(iter(index["weight_map"].items()))
    other = next(s for s in index["weight_map"].values() if s != shard)

    def refused_with(weight_map: Any, word: str) -> None:
        (src / INDEX).write_text(json.dumps({"weight_map": weight_map}))
        refused(src, word)

    refused_with({}, "no weight_map")
    refused_with([], "no weight_map")
    refused_with(index["weight_map"] | {name: "gone.safetensors"}, "missing")
    (src / INDEX).write_text(json.dumps(index))
    resolve_source(src)
    (src / other).unlink()
    refused(src, other, "missing")


def test_a_tensor_in_two_shards(small: Path) -> None:
    shutil.copy(small / "model.safetensors", small / "a.safetensors")
    shutil.move(small / "model.safetensors", small / "b.safetensors")
    (small / INDEX).write_text(json.dumps({"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}))
    refused(small, "a.safetensors", "b.safetensors")


def test_symbolic_links(small: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    link = small / "link.txt"

    def refused_link(target: Path | str, word: str) -> None:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        refused(small, "link.txt", word)

    refused_link(tmp_path / "secret", "leads out")
    refused_link("../secret", "leads out")
    refused_link("nothing", "missing")
    refused_link("link.txt", "circle")
    refused_link(tmp_path, "symbolic link to a folder")
    link.unlink()
    link.symlink_to("config.json")
    assert "link.txt" in resolve_source(small).files


@pytest.mark.parametrize("name", ["pipe", "pipe.json"])
def test_a_pipe_is_no_file(small: Path, name: str) -> None:
    os.mkfifo(small / name)
    refused(small, "not a regular file")


def hub_cache(hub: Path, folder: Path, repo: str = "org/tiny") -> Path:
    """The folder's files in the layout of the Hub cache."""
    root = hub / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    for number, path in enumerate(sorted(folder.iterdir())):
        blob = root / "blobs" / f"{number:040x}"
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


def test_a_hub_id_from_the_cache(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    (small / "pytorch_model.bin").write_bytes(b"pickled")
    snapshot = hub_cache(tmp_path / "hub", small)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = resolve_source("org/tiny")
    assert (source.repo, source.revision, source.path) == ("org/tiny", COMMIT, snapshot)
    assert source.files == ("config.json", "model.safetensors")  # what a download would have left out is left out
    assert resolve_source(snapshot) == source
    assert resolve_source("org/tiny", revision=COMMIT) == source
    refused("org/other", "not (or not all) in the cache")  # type: ignore[arg-type]
    refused("org/tiny", "revision v9", revision="v9")  # type: ignore[arg-type]
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(small / "config.json")
    refused(snapshot, "leads out")


@pytest.mark.parametrize("name", ["a/b/c", "../x", "", "https://huggingface.co/a/b", "a b", "--x--"])
def test_what_is_no_hub_id(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with pytest.raises(LostattnError, match=": "):
        resolve_source(name)
