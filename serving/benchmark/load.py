"""Load from vLLM's serving benchmark: random pictures or videos of one size with random text, as many at once as wanted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from ...patches.errors import LostattnError
from ..client import Endpoint
from ..disk import disk_errors
from ..server import STARTUP
from .sizes import Size

SCRIPT = Path(__file__).parent / "generator.py"
LIMITS = ('{"image": 1, "video": 0}', '{"image": 0, "video": 1}')  # of loads with pictures, with videos
NEEDS = {"pandas": "pandas", "datasets": "datasets", "aiohttp": "aiohttp"}


@dataclass(frozen=True)
class Load:
    """One load: `seed` decides pictures and texts, so that the same load can be put on every server."""

    size: Size
    concurrency: int
    requests: int
    text_tokens: int
    output_tokens: int
    seed: int
    warmups: int

    def arguments(self, server: Endpoint, tokenizer: Path) -> list[str]:
        """Of `vllm bench serve`."""
        item = f"{{({self.size.height}, {self.size.width}, {self.size.frames}): 1.0}}"
        values = {
            "--backend": "openai-chat",
            "--base-url": server.url.removesuffix("/v1"),
            "--endpoint": "/v1/chat/completions",
            "--model": server.name,
            "--tokenizer": str(tokenizer),
            "--dataset-name": "random-mm",
            "--random-mm-bucket-config": item,
            "--random-mm-base-items-per-request": "1",
            "--random-mm-num-mm-items-range-ratio": "0",
            "--random-mm-limit-mm-per-prompt": LIMITS[self.size.frames > 1],
            "--random-input-len": str(self.text_tokens),
            "--random-output-len": str(self.output_tokens),
            "--random-range-ratio": "0",
            "--num-prompts": str(self.requests),
            "--num-warmups": str(self.warmups),
            "--max-concurrency": str(self.concurrency),
            "--seed": str(self.seed),
            "--temperature": "0",
        }
        return [part for pair in values.items() for part in pair] + [
            "--ignore-eos",
            "--disable-tqdm",
            "--save-detailed",
        ]


class Generator:
    """The process that makes the load; a context manager."""

    def __init__(self, log: Path) -> None:
        """Nothing is started yet; the process's output goes to `log`."""
        self.log = log
        self._process: subprocess.Popen[str] | None = None

    def put(self, load: Load, server: Endpoint, tokenizer: Path) -> dict[str, Any]:
        """Put a load on a server and wait for its end.

        Returns:
            What vLLM measured, see `generator.KEPT`; times of single requests in seconds.

        Raises:
            LostattnError: the benchmark or one of its requests failed.
        """
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(load.arguments(server, tokenizer)) + "\n")
            process.stdin.flush()
            result: dict[str, Any] = json.loads(process.stdout.readline() or '{"error": "it ended"}')
        except OSError as error:
            raise LostattnError(f"vLLM's benchmark ended unexpectedly: see its log {self.log}") from error
        if "error" in result:
            raise LostattnError(f"vLLM's benchmark failed ({result['error'][:200]}): see its log {self.log}")
        if result["completed"] != load.requests:
            first = next((e for e in result["errors"] or () if e), "no reason given").strip().splitlines()[-1]
            raise LostattnError(
                f"{load.requests - result['completed']} of {load.requests} requests failed on {server.name} ({first[:200]}): "
                f"see the server's log"
            )
        return result

    def _start(self) -> subprocess.Popen[str]:
        if missing := [package for module, package in NEEDS.items() if find_spec(module) is None]:
            raise LostattnError(f"vLLM's benchmark needs more packages: pip install {' '.join(missing)}")
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(STARTUP), os.environ.get("PYTHONPATH")]))}
        env |= {"no_proxy": "*", "VLLM_NO_USAGE_STATS": "1"}
        with disk_errors(f"cannot write the log {self.log}"), self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(SCRIPT)],
                env=env,
                text=True,
                encoding="utf-8",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        return self._process

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Generator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
