"""Ports that are taken in every way, and servers that are not ours."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving import ports
from lostattn.serving.ports import answers_itself, free_port, is_taken, need_free, reached_at
from lostattn.serving.server import Server, status_of


def has(host: str) -> bool:
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return True
    except OSError:
        return False


@contextmanager
def listener(host: str, port: int = 0, shared: bool = False, dual: bool = False) -> Iterator[int]:
    """Somebody who listens; `shared` as vLLM does, with SO_REUSEPORT."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        found.bind((host, port))
        found.listen()
        yield int(found.getsockname()[1])


HOSTS = ["127.0.0.1", "0.0.0.0", "localhost", "", "::1", "::", "127.0.0.2"]
CLASHES = [
    ("127.0.0.1", {"127.0.0.1", "0.0.0.0", "localhost", "", "::"}),  # :: listens at IPv4 addresses too
    ("0.0.0.0", {"127.0.0.1", "0.0.0.0", "localhost", "", "127.0.0.2", "::"}),
    ("127.0.0.2", {"127.0.0.2", "0.0.0.0", "", "::"}),
    ("::1", {"::1", "::"}),
]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("there", "clash"), CLASHES, ids=[c[0] for c in CLASHES])
def test_whoever_listens_takes_the_port(there: str, clash: set[str], shared: bool) -> None:
    if not has(there):
        pytest.skip("no such address here")
    with listener(there, shared=shared) as port:
        for host in filter(has, (h for h in HOSTS if h not in ("localhost", ""))):
            assert is_taken(host, port) == (host in clash), host
        for host in {"localhost", ""} & clash:
            assert is_taken(host, port)
            with pytest.raises(LostattnError, match=f"port {port} is taken: choose another"):
                need_free(host, port)
    assert not is_taken(there, port)


def test_a_name_is_taken_if_any_of_its_addresses_is(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, "127.0.0.2"), (socket.AF_INET, "127.0.0.3")]
    if not (has("127.0.0.2") and has("127.0.0.3")):
        pytest.skip("one loopback address only")
    monkeypatch.setattr(ports, "_addresses", lambda host, port: [(f, (a, port)) for f, a in both])
    for there in ("127.0.0.2", "127.0.0.3"):
        with listener(there) as port:
            assert is_taken("name", port)
    assert not is_taken("name", port)


def test_connections_that_ended_do_not_count() -> None:
    with listener("127.0.0.1") as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"x")
    assert not is_taken("127.0.0.1", port)


def test_free_ports_and_hosts_that_are_not_here() -> None:
    assert free_port("127.0.0.1") in ports.PORTS
    for host in ("203.0.113.7", "no.such.host.invalid", "a b", "\udcff", "x" * 300):
        with pytest.raises(LostattnError, match="no port can be opened on"):
            free_port(host)


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("::", "::1"),
        ("0:0:0:0:0:0:0:0", "::1"),
        ("::1", "::1"),
        ("localhost", "localhost"),
        ("10.0.0.5", "10.0.0.5"),
    ],
)
def test_where_a_server_is_reached(host: str, reached: str) -> None:
    assert reached_at(host) == reached


def test_whose_server_it_is() -> None:
    pytest.importorskip("psutil")
    with Other("127.0.0.1", port := free_port("127.0.0.1")) as one:
        assert answers_itself(one.pid, "127.0.0.1", port)
        assert answers_itself(os.getpid(), "127.0.0.1", port), "a child's port is its parent's"
        assert answers_itself(one.pid, "127.0.0.1", port + 1) is False
        with Other("127.0.0.1", port) as two:  # as two servers of one user do
            assert answers_itself(one.pid, "127.0.0.1", port) is False
            assert answers_itself(two.pid, "127.0.0.1", port) is False
        assert answers_itself(one.pid, "127.0.0.1", port)


class Other:
    """Another process that listens at a port which is shared."""

    def __init__(self, host: str, port: int) -> None:
        code = (
            "import socket, sys\ns = socket.socket()\ns.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
            f"s.bind(({host!r}, {port}))\ns.listen()\nprint(flush=True)\nsys.stdin.read()\n"
        )
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, "-c", code], **pipes)  # type: ignore[call-overload]
        self.pid = self.process.pid

    def __enter__(self) -> Other:
        assert self.process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


class Healthy(http.server.BaseHTTPRequestHandler):
    """Says 200 to everything, as whatever server."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def healthy(port: int) -> Iterator[None]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A stand-in for vLLM that runs the code it is given."""

    def play(code: str) -> None:
        package = tmp_path / "site" / "vllm" / "entrypoints" / "openai"
        package.mkdir(parents=True)
        for folder in (package, package.parent, package.parent.parent):
            (folder / "__init__.py").write_text("")
        (package / "api_server.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))

    return play


def test_a_taken_port_starts_nothing(vllm: Callable[[str], None], tmp_path: Path) -> None:
    vllm("raise SystemExit('it was started')")
    server = Server(tmp_path, port=free_port("127.0.0.1"), log=tmp_path / "log")
    with (
        healthy(server.port),
        pytest.raises(LostattnError, match=f"port {server.port} is taken"),
    ):
        server.start()
    assert not (tmp_path / "log").exists() and not server.running


def test_somebody_elses_answer_is_never_taken_for_ours(vllm: Callable[[str], None], tmp_path: Path) -> None:
    """The port is free at first, and another server is there before ours has loaded."""
    pytest.importorskip("psutil")
    vllm("import time\nprint('loading', flush=True)\ntime.sleep(600)")
    server = Server(tmp_path, port=free_port("127.0.0.1"), log=tmp_path / "log")
    ended = threading.Event()

    def come_first() -> None:
        while not (tmp_path / "log").exists():
            ended.wait(0.01)
        with healthy(server.port):
            assert status_of(f"{server.root}/health") == 200
            ended.wait()

    thread = threading.Thread(target=come_first)
    thread.start()
    try:
        with pytest.raises(LostattnError, match=f"port {server.port} is taken"):
            server.start(timeout=60)
    finally:
        ended.set()
        thread.join()
    assert not server.running


def test_a_port_of_our_choice_that_was_taken_meanwhile_is_changed(vllm: Callable[[str], None], tmp_path: Path) -> None:
    vllm("raise SystemExit('started')")
    server = Server(tmp_path, log=tmp_path / "log")
    first = server.port
    with listener("127.0.0.1", first), pytest.raises(LostattnError, match="exit code 1"):
        server.start()
    assert server.port != first
