"""The server: threads of this process, every request logged, faults applied before or after the work."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote

from .api import Request, answer
from .faults import Fault, Faults
from .store import Refusal, Store

RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


class Hub:
    """A running Hub: `url` for HF_ENDPOINT, its store and its faults."""

    def __init__(self) -> None:
        self.store, self.faults, self.part_size = Store(), Faults(), None
        hub = self

        class Handler(_Handler):
            owner = hub

        self.http = _Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.storage = f"http://localhost:{self.http.server_port}"  # another origin, as on the real Hub

    part_size: int | None

    @contextlib.contextmanager
    def running(self) -> Iterator[Hub]:
        thread = Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.http.shutdown()
            self.http.server_close()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is a mistake of this server."""
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    owner: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        fault = self.owner.faults.due(self.command, self.path)
        body = self._body(fault)
        self.owner.faults.log.append((self.command, self.path, len(body), "Authorization" in self.headers))
        if fault is not None and self._fail(fault):
            return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        request = Request(
            self.owner.store, token, body, query, self.owner.url, self.owner.storage, self.owner.part_size
        )
        try:
            found = RESOLVE.fullmatch(path)
            if found is not None or path.startswith("/storage/") and self.command == "GET":
                self._file(
                    request, path, {k: unquote(v) for k, v in found.groupdict().items()} if found else None, fault
                )
                return
            self._answer(200, answer(self.command, path, request), lost=fault is not None and fault.kind == "lost")
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            self._answer(refusal.status, {"error": refusal.message}, {"X-Error-Message": refusal.message, **headers})

    def _break(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self, fault: Fault | None) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            return self._chunked()
        if fault is not None and fault.kind == "cut":
            return self.rfile.read(length // 2)
        return self.rfile.read(length)

    def _chunked(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _fail(self, fault: Fault) -> bool:
        """Apply a fault; True if the request ends here."""
        if fault.kind == "cut" and self.command in ("PUT", "POST", "HEAD"):
            self.close_connection = True
            self._break()
            return True
        if fault.kind == "slow":
            time.sleep(fault.seconds)
            self.close_connection = True
            return True
        if fault.kind == "garbage":
            self._send(200, b"<html>a proxy's page</html>", {"Content-Type": "text/html"})
            return True
        if isinstance(fault.kind, int):
            self._answer(fault.kind, {"error": fault.message}, {"X-Error-Message": fault.message})
            return True
        return False

    def _answer(self, status: int, value: Any, headers: dict[str, str] | None = None, lost: bool = False) -> None:
        if lost:
            self.close_connection = True
            self._break()
            return
        etag = {"ETag": f'"{value["etag"]}"'} if isinstance(value, dict) and "etag" in value else {}
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **etag, **(headers or {})})

    def _file(self, request: Request, path: str, found: dict[str, str] | None, fault: Fault | None) -> None:
        if found is None:  # from the storage: no token, any range
            self._bytes(request.store.objects[path.rpartition("/")[2]], {}, fault)
            return
        repo = request.store.readable(found["repo"], request.token)
        commit = repo.resolve(found["revision"])
        blob = commit.tree.get(found["path"])
        if blob is None:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.sha256 or blob.oid}"'}
        if blob.sha256:
            linked = {"X-Linked-Size": str(blob.size), "X-Linked-Etag": f'"{blob.sha256}"'}
            location = {"Location": f"{self.owner.storage}/storage/{repo.name}/{blob.sha256}"}
            self._send(302, b"", {**headers, **linked, **location})
            return
        self._bytes(blob.data, headers, fault)

    def _bytes(self, data: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")) else 0
        ranged = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        part = data[start:]
        self.send_response(206 if start else 200)
        for name, value in {**headers, **ranged, "Content-Length": str(len(part))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = fault is not None and fault.kind == "cut"
        with contextlib.suppress(OSError):
            self.wfile.write(part[: len(part) // 2] if cut else part)
            self.wfile.flush()
        if cut:
            self.close_connection = True
            self._break()

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)
