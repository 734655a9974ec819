"""`lostattn serve` before it starts anything: checks, and what it says."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lostattn.patches.errors import LostattnError
from lostattn.surgery import serve as serving
from lostattn.surgery.cli import main

MODEL = Path(__file__).resolve().parents[2] / "surgery" / "demo" / "model"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A folder with a config and nothing else."""
    (tmp_path / "model").mkdir()
    shutil.copy(MODEL / "config.json", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a vLLM of the supported range were there."""
    monkeypatch.setattr(serving, "check_vllm", lambda: None)


def prepare(folder: Path, **changes: Any) -> serving.Prepared:
    given: dict[str, Any] = {
        "name": None,
        "host": "127.0.0.1",
        "port": 1,
        "api_key": None,
        "max_image_pixels": 1,
        "max_images": 1,
        "options": [],
        "log": folder.parent / "log",
    } | changes
    return serving.prepare(folder, **given)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["serve", *arguments])


def test_a_plain_folder_is_served_and_that_is_said(plain: Path) -> None:
    found = prepare(plain, options=["--dtype", "float32"])
    assert found.plan is None and "not patched" in found.notes[0]
    assert found.server.options[-2:] == ["--dtype", "float32"] and found.server.name == "model"


@pytest.mark.parametrize(
    "option",
    [
        ["--model", "x"],
        ["--host=0.0.0.0"],
        ["--port", "1"],
        ["--api_key", "x"],
        ["--served-model-name", "a"],
        ["--uds"],
    ],
)
def test_options_that_serve_has_itself(plain: Path, option: list[str]) -> None:
    with pytest.raises(LostattnError, match="is not for vLLM's part of the command line"):
        prepare(plain, options=option)


@pytest.mark.parametrize("key", ["a b", "schl\u00fcssel", "a\n", ""])
def test_keys_that_no_header_can_carry(plain: Path, key: str) -> None:
    with pytest.raises(LostattnError, match="printable ASCII"):
        prepare(plain, api_key=key)


def test_the_key_is_not_on_the_command_line(plain: Path) -> None:
    assert "sesame" not in " ".join(prepare(plain, api_key="sesame").server.options)


def test_a_patched_folder_needs_the_plugin(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "checked_plan", lambda folder: object())
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    with pytest.raises(LostattnError, match="does not see lostattn's plugin"):
        prepare(plain)


def test_plugins_that_are_chosen_must_include_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "lostattn"

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Entry()])
    serving.check_plugin()
    monkeypatch.setenv("VLLM_PLUGINS", "a,lostattn")
    serving.check_plugin()
    monkeypatch.setenv("VLLM_PLUGINS", "a")
    with pytest.raises(LostattnError, match="keeps lostattn's plugin out"):
        serving.check_plugin()


def test_user_mistakes_are_one_sentence(tmp_path: Path, plain: Path) -> None:
    for arguments, said in [
        ([str(tmp_path / "none")], "is not a model folder"),
        ([str(tmp_path)], "no readable config.json"),
        ([str(plain), "--api-key", "a b"], "printable ASCII"),
        ([str(plain), "--", "--port", "3"], "put --port in front"),
    ]:
        found = run(*arguments)
        assert found.exit_code == 2 and said in found.stderr and found.stdout == ""
        assert found.stderr.count("\n") == 1


@pytest.mark.parametrize("bound", ["--max-video-seconds", "--max-video-frames", "--max-video-pixels"])
def test_a_bound_of_videos_needs_videos(plain: Path, bound: str) -> None:
    done = run(str(plain), bound, "10")
    assert done.exit_code == 2 and f"{bound} bounds videos, and this server takes none: add --max-videos" in done.stderr


def test_a_damaged_patched_folder_is_refused(plain: Path) -> None:
    config = json.loads((plain / "config.json").read_text()) | {"model_type": "sap_qwen2_5_vl", "sap": {"format": 1}}
    (plain / "config.json").write_text(json.dumps(config))
    found = run(str(plain))
    assert found.exit_code == 2 and "not patched by lostattn" in found.stderr


def test_the_curl_line_is_quoted(plain: Path) -> None:
    server = prepare(plain, name='it\'s "a" $name').server
    words = shlex.split(serving.curl_line(server, True))
    assert words[1] == "http://127.0.0.1:1/v1/chat/completions" and "Authorization: Bearer $LOSTATTN_API_KEY" in words
    body = json.loads(words[-1])
    assert body["model"] == 'it\'s "a" $name' and body["messages"][0]["content"][0]["type"] == "image_url"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "::1", "::"])
def test_a_taken_port_is_said_before_anything_starts(plain: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lostattn.serving.server.Server._launch", lambda self: pytest.fail("it was started"))
    there = {"0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}.get(host, host)
    family = socket.AF_INET6 if ":" in there else socket.AF_INET
    try:
        taken = socket.create_server((there, 0), family=family, reuse_port=True)  # as another vLLM has it
    except OSError:
        pytest.skip("no such address here")
    with taken:
        port = taken.getsockname()[1]
        found = run(str(plain), "--host", host, "--port", str(port))
    assert found.exit_code == 2 and found.stdout == ""
    assert found.stderr.count("\n") == 1 and f"port {port} is taken: choose another" in found.stderr


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_a_host_that_is_not_here(plain: Path, host: str) -> None:
    for port in ("0", "8123"):
        found = run(str(plain), "--host", host, "--port", port)
        assert found.exit_code == 2 and f"no port can be opened on {host}" in found.stderr
