"""Pointing this process, or a child, at the Hub of the tests."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from .server import Hub

TOKEN, READ_TOKEN = "hf_writeSECRETtoken123", "hf_readSECRETtoken456"
SECRETS = ("SECRETtoken", "SIGNEDADDRESS", "SECRETWORD", "X-Signature")


def connect(hub: Hub, monkeypatch: pytest.MonkeyPatch, home: Path, token: str | None = TOKEN) -> None:
    """Let huggingface_hub in this process talk to that Hub, without Xet, with fresh caches and without waits."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http
    from lostattn.surgery.hub import upload

    values: dict[str, Any] = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "tokens"),
        "HF_HOME": str(home),
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    as_user(monkeypatch, token)
    patient = SimpleNamespace(sleep=lambda _: None)
    for module in (_http, file_download, upload):
        monkeypatch.setattr(module, "time", patient)


def as_user(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    """With that token, or with none."""
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    else:
        monkeypatch.setenv("HF_TOKEN", token)


def environment(hub: Hub, home: Path, token: str | None = TOKEN) -> dict[str, str]:
    """The same for a child process."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_FACE"))}
    found = {**kept, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home)}
    return found | ({"HF_TOKEN": token} if token else {})


def mistake(found: Result) -> str:
    """The one sentence of a refused command, which prints nothing else to stdout and exits with 2."""
    lines = [line for line in found.stderr.splitlines() if line.startswith("Error: ")]
    assert found.exit_code == 2 and found.stdout == "" and len(lines) == 1, found.output
    assert found.stderr.rstrip().endswith(lines[0])
    return lines[0]
