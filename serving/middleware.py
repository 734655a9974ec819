"""Two small guards in front of vLLM's API, put there by its own option `--middleware`. They import nothing heavy.

They read their settings from the environment of the server's process, as vLLM builds them without arguments.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .cause import cause

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_BYTES_VARIABLE = "LOSTATTN_MAX_REQUEST_BYTES"
DOOR_VARIABLE = "LOSTATTN_DOOR"  # set: requests may not name content
MAX_DEPTH = 64  # of JSON; parsers of a request recurse
OPEN_PATHS = ("/health", "/ping", "/version", "/load", "/metrics")
CONTROLS = ("/scale_elastic_ep",)  # of vLLM itself: holds all requests while it tries


class RequireKey:
    """Asks for the API key everywhere but on the paths that say how the server does; vLLM itself asks under /v1 only."""

    def __init__(self, app: App) -> None:
        key = os.environ.get("VLLM_API_KEY", "")
        self.app, self.key = app, hashlib.sha256(f"Bearer {key}".encode()).digest() if key else None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if self.key is None or scope["type"] not in ("http", "websocket") or scope.get("method") == "OPTIONS":
            return await self.app(scope, receive, send)
        if _path(scope) in OPEN_PATHS or hmac.compare_digest(hashlib.sha256(_authorization(scope)).digest(), self.key):
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        await _refuse(send, 401, "the API key is missing or wrong")


class LimitRequests:
    """Refuses request bodies that are too large (413) or nested too deeply (400) before they are parsed.

    It also brings into vLLM's API server what has to be changed inside it (`engine/door.py`), and the strict media
    connector if VLLM_MEDIA_CONNECTOR names it.
    """

    def __init__(self, app: App) -> None:
        self.app, self.limit = app, int(os.environ.get(MAX_BYTES_VARIABLE) or 0)
        if os.environ.get(DOOR_VARIABLE):
            from .engine.door import install

            install()
        if os.environ.get("VLLM_MEDIA_CONNECTOR") == "lostattn":
            from . import media  # noqa: F401 - registers it

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] != "http" or not self.limit or scope.get("method") in ("GET", "HEAD", "OPTIONS"):
            return await self.app(scope, receive, send)
        if _path(scope) in CONTROLS:
            return await _refuse(send, 403, "this server is not controlled by requests")
        too_large = f"the request is larger than {self.limit} bytes"
        if _announced(scope) > self.limit:
            return await _refuse(send, 413, too_large)
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client has gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.limit:
                return await _refuse(send, 413, too_large)
            more = message.get("more_body", False)
        body = b"".join(parts)
        parts.clear()
        if _too_deep(body):
            return await _refuse(send, 400, f"the request is nested deeper than {MAX_DEPTH} levels")
        stream = _Stream(send)
        try:
            await self.app(scope, _replay(body, receive), stream)
        except Exception as error:
            await stream.end(error)
            raise


class _Stream:
    """A response on its way. If it breaks in the middle of a stream of events, the reason is the last event."""

    def __init__(self, send: Send) -> None:
        self.send, self.open = send, False

    async def __call__(self, message: Message) -> None:
        """Pass a message on (ASGI)."""
        if message["type"] == "http.response.start":
            self.open = any(
                k.lower() == b"content-type" and b"event-stream" in v for k, v in message.get("headers", ())
            )
        elif not message.get("more_body", False):
            self.open = False
        await self.send(message)

    async def end(self, error: BaseException) -> None:
        """Tell the client what broke; nothing where no stream of events has begun, or where it has ended."""
        if self.open:
            self.open = False
            event = b"event: error\ndata: " + _error(cause(error.__cause__ or error), 400) + b"\n\n"
            await self.send({"type": "http.response.body", "body": event, "more_body": False})


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand the body over once, then whatever the connection says."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


def _too_deep(body: bytes) -> bool:
    """Whether brackets outside of JSON strings nest deeper than MAX_DEPTH."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for number, part in enumerate(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')):
        if number % 2:
            continue
        for byte in part:
            if byte in b"[{":
                depth += 1
                if depth > MAX_DEPTH:
                    return True
            elif byte in b"]}":
                depth -= 1
    return False


def _path(scope: Message) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _authorization(scope: Message) -> bytes:
    """The header as `Bearer <key>`, whatever the case of its first word."""
    value = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
    scheme, _, key = value.partition(b" ")
    return b"Bearer " + key if scheme.lower() == b"bearer" else b""


def _announced(scope: Message) -> int:
    value = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
    return int(value) if value.isdigit() else 0


async def _refuse(send: Send, status: int, message: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": _error(message, status)})


def _error(message: str, status: int) -> bytes:
    results = {"message": message, "type": "invalid_request_error", "param": None, "code": status}
    return json.dumps({"error": results}).encode()
