"""What keeps a server's users from harming it: options, environment, and the guards in front of vLLM's API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lostattn.serving import safety
from lostattn.serving.middleware import MAX_BYTES_VARIABLE, MAX_DEPTH, LimitRequests, RequireKey
from lostattn.serving.safety import cpu_defaults, names, safe_defaults


class App:
    """Remembers the bodies that reach it."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.seen.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})


def call(app: Any, *parts: bytes, path: str = "/v1/x", method: str = "POST", **headers: str) -> int:
    """Status of a request whose body comes in parts."""
    scope = {"type": "http", "method": method, "path": path}
    scope["headers"] = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]  # type: ignore[assignment]
    waiting = [{"type": "http.request", "body": p, "more_body": i + 1 < len(parts)} for i, p in enumerate(parts)]
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return int(sent[0]["status"]) if sent else 0


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> tuple[LimitRequests, App]:
    monkeypatch.setenv(MAX_BYTES_VARIABLE, "1000")
    app = App()
    return LimitRequests(app), app


def test_bodies_within_the_limit_pass_unchanged(limited: tuple[LimitRequests, App]) -> None:
    guard, app = limited
    parts = [b"a" * 400, b"b" * 400, b"c" * 200]
    assert call(guard, *parts) == 200 and app.seen == [b"".join(parts)]
    assert call(guard, b"", method="GET") == 200


def test_bodies_beyond_the_limit_do_not(limited: tuple[LimitRequests, App]) -> None:
    guard, app = limited
    assert call(guard, b"a" * 400, b"b" * 400, b"c" * 201) == 413
    assert call(guard, b"a", content_length="1001") == 413
    assert call(guard) == 0, "a client that leaves gets nothing"
    assert not app.seen


@pytest.mark.parametrize(("kind", "told"), [(b"text/event-stream; charset=utf-8", True), (b"application/json", False)])
def test_a_stream_that_breaks_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch, kind: bytes, told: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", kind)]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        raise RuntimeError("response already started") from ValueError("the number is too large")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    monkeypatch.setenv(MAX_BYTES_VARIABLE, "1000")
    with pytest.raises(RuntimeError):
        asyncio.run(
            LimitRequests(app)({"type": "http", "method": "POST", "path": "/v1/x", "headers": []}, receive, send)
        )
    assert (len(sent) == 3) == told
    if told:
        event, data = sent[2]["body"].decode().strip().split("\n")
        assert event == "event: error" and json.loads(data[6:])["error"]["message"] == "the number is too large"
        assert sent[2]["more_body"] is False


def test_controls_are_nobodys(limited: tuple[LimitRequests, App]) -> None:
    guard, app = limited
    assert call(guard, b"{}", path="/scale_elastic_ep") == 403 and not app.seen
    assert call(guard, b"{}", path="/is_scaling_elastic_ep") == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, 200),
        (b"[" * (MAX_DEPTH + 1), 400),
        (b'{"a":' * (MAX_DEPTH + 1), 400),
        (json.dumps({"text": "[" * 500}).encode(), 200),
        (json.dumps({"text": '\\"' + "[" * 500 + '"', "more": ["{" * 100]}).encode(), 200),
        (json.dumps([[]] * 200).encode(), 200),
        (b'{"text": "\\\\", "a": ' + b"[" * (MAX_DEPTH + 1), 400),
    ],
)
def test_depth_counts_outside_of_strings(limited: tuple[LimitRequests, App], body: bytes, status: int) -> None:
    assert call(limited[0], body) == status


def test_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "sesame")
    guard = RequireKey(App())
    for path in ("/invocations", "/v1/models", "/tokenize", "/health/x", "//health", "/"):
        assert call(guard, b"", path=path) == 401
        assert call(guard, b"", path=path, authorization="Bearer sesam") == 401
        assert call(guard, b"", path=path, authorization="Basic sesame") == 401
        assert call(guard, b"", path=path, authorization="sesame") == 401
        assert call(guard, b"", path=path, authorization="bearer sesame") == 200
    assert call(guard, b"", path="/health") == call(guard, b"", path="/x", method="OPTIONS") == 200
    monkeypatch.setenv("VLLM_API_KEY", "")
    assert call(RequireKey(App()), b"") == 200


def value(options: Sequence[str], name: str) -> str:
    return options[list(options).index(name) + 1]


def test_safe_by_default() -> None:
    safe = safe_defaults("127.0.0.1", False, 1234, 3, ["--dtype", "float32"])
    assert json.loads(value(safe.options, "--limit-mm-per-prompt")) == {"image": 3, "video": 0, "audio": 0}
    assert value(safe.options, "--allowed-media-domains") == "media.invalid"
    assert safe.env["VLLM_MAX_IMAGE_PIXELS"] == "1234" and safe.env["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert not safe.warnings


def test_whoever_wants_less_safety_gets_it_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["--allowed_media_domains=a.org", "--limit-mm-per-prompt.image", "9", "--trust-remote-code"]
    safe = safe_defaults("127.0.0.1", True, 1, 1, given)
    assert "--allowed-media-domains" not in safe.options and "--limit-mm-per-prompt" not in safe.options
    assert len(safe.warnings) == 3 and any("runs Python code" in w for w in safe.warnings)
    assert "without a key" in safe_defaults("0.0.0.0", False, 1, 1, []).warnings[0]
    assert "TLS" in safe_defaults("0.0.0.0", True, 1, 1, []).warnings[0]
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    safe = safe_defaults("::1", True, 1, 1, [])
    assert safe.env["VLLM_SERVER_DEV_MODE"] == "0" and "VLLM_SERVER_DEV_MODE" in safe.warnings[0]
    monkeypatch.setenv("VLLM_ENABLE_RESPONSES_API_STORE", "1")
    safe = safe_defaults("::1", True, 1, 1, [])
    assert safe.env["VLLM_ENABLE_RESPONSES_API_STORE"] == "0" and "names of stored answers" in safe.warnings[1]
    monkeypatch.setenv("VLLM_MEDIA_CONNECTOR", "mine")
    assert safe_defaults("::1", True, 1, 1, []).env["VLLM_MEDIA_CONNECTOR"] == "mine"


def test_option_names() -> None:
    assert names(["--a-b", "1"], "--a-b") and names(["--a_b=1"], "--a-b") and names(["--a-b.c", "1"], "--a-b")
    assert names(["--trust-rem"], "--trust-remote-code") and not names(["--", "--t"], "--trust-remote-code")
    assert names(["--no-a-b"], "--a-b") and not names(["--a-bc", "a-b"], "--a-b")


def test_memory_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psutil")
    monkeypatch.setattr(safety, "on_cpu", lambda: True)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    found = cpu_defaults(tmp_path, [])
    assert 1 <= int(found.env["VLLM_CPU_KVCACHE_SPACE"]) <= 16 and found.options == ["--max-model-len", "auto"]
    assert cpu_defaults(tmp_path, ["--gpu-memory-utilization=0.3", "--max-model-len", "8"]) == safety.Safety([], {})
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    assert cpu_defaults(tmp_path, []).env == {}
    monkeypatch.setattr(safety, "on_cpu", lambda: False)
    assert cpu_defaults(tmp_path, []) == safety.Safety([], {})
