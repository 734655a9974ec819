"""An OpenAI-style server that answers by a function, and fails when told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Respond = Callable[[dict[str, Any]], "str | int | tuple[int, dict[str, str]]"]


class Api(ThreadingHTTPServer):
    """`bodies` are the requests that came in, `keys` their authorization.

    `respond` gives a text, or an HTTP status with headers.
    """

    daemon_threads = True

    def __init__(self, respond: Respond, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.respond, self.bodies, self.keys = respond, list[dict[str, Any]](), set[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.add(str(self.headers["Authorization"]))
        found = self.server.respond(body)
        if isinstance(found, str):
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": found}}
            self._send(
                200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}, {}
            )
        else:
            status, headers = found if isinstance(found, tuple) else (found, {})
            self._send(status, {"message": f"planned failure {status}"}, headers)

    def _send(self, status: int, value: Any, headers: dict[str, str]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def api(respond: Respond, port: int = 0) -> Iterator[Api]:
    """The server, while the block runs."""
    server = Api(respond, port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def text_of(body: dict[str, Any]) -> str:
    """The texts of a request's prompt."""
    return "".join(part.get("text", "<image>") for part in body["messages"][0]["content"])
