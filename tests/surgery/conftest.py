"""A tiny LLaVA checkpoint, sharded, with side files; and plans for it."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lostattn.patches.plan import Plan

README = "---\nlicense: apache-2.0\nlanguage:\n- en\n---\n# Tiny\n\nGrüße.\n"


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never write into it: take `src`."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    config = LlavaConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": 64,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
        },
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
            "projection_dim": 32,
        },
        image_token_index=60,
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder, max_shard_size="100KB")
    (folder / "README.md").write_text(README, encoding="utf-8")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    (folder / "extra").mkdir()
    (folder / "extra" / "note.txt").write_bytes(b"\xff\xfe not text")
    return folder


@pytest.fixture(scope="session")
def demo() -> Path:
    """The shipped demo model. Never write into it."""
    from lostattn.surgery.demo.demo import MODEL

    return MODEL


@pytest.fixture(scope="session")
def demo_config(demo: Path) -> dict[str, Any]:
    return dict(json.loads((demo / "config.json").read_text()))


@pytest.fixture(scope="session")
def demo_chat(demo: Path) -> Any:
    """The shipped model, loaded. Leave it as it is."""
    from lostattn.surgery.chat import Chat

    return Chat.load(demo)


@pytest.fixture(scope="session")
def demo_calibration(demo_chat: Any) -> Any:
    from lostattn.patches.family import get_family
    from lostattn.surgery.calibrate import calibrate
    from lostattn.surgery.demo.builtin import builtin_examples

    return calibrate(demo_chat, get_family("qwen2_5_vl"), builtin_examples(6), "six questions")


@pytest.fixture
def src(tiny_llava: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_llava, tmp_path / "src"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A source of one tensor: enough where nothing is loaded."""
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llava", "zeta": 1, "alpha": {"b": 2}}')
    header = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    write_safetensors(folder / "model.safetensors", header, b"abcdefgh")
    return folder


@pytest.fixture
def whole(tiny_llava: Path, tmp_path: Path) -> Path:
    """The tiny LLaVA in one file of weights, with nothing beside it."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "whole"
    folder.mkdir()
    shutil.copy(tiny_llava / "config.json", folder)
    tensors = {n: t for path in tiny_llava.glob("*.safetensors") for n, t in load_file(path).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def plan() -> Plan:
    """Heads 0-1 (a whole KV group) of layer 1, head 3 of layer 2."""
    return Plan("llava", "uniform", "paper", "raw", "all", 3, 4, 2, heads={1: (0, 1), 2: (3,)})


def write_safetensors(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> None:
    """A safetensors file with any header, right or wrong."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)


@pytest.fixture
def safetensors_file() -> Callable[..., None]:
    return write_safetensors


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, str]]:
    """Folder -> relative name -> sha256 of everything in it."""
    return lambda folder: dict(_digests(folder))


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()
