"""A sweep on several devices of one machine: a process on each, which share the plans by the lock files in `out`."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch

from ...patches.errors import LostattnError
from ...serving.evaluation.rate import Rate
from ..chat import torch_device
from ..evaluation.evaluate import EvalSettings
from ..evaluation.tasks import Asked
from .sweep import run_sweep
from .work import Plans, Work

GLANCE = 0.2  # seconds between looks at the workers
logger = logging.getLogger(__name__)


class WorkerDied(RuntimeError):
    """A worker ended otherwise than with a user's mistake; one sentence."""


@dataclass(frozen=True)
class Worker:
    """One process; `said` is its stderr."""

    device: str
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def check(self) -> bool:
        """Whether it still runs. LostattnError or WorkerDied if it ended badly, as it said itself."""
        code = self.process.poll()
        if not code:
            return code is None
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").split("\n")
        stated = next((line for line in reversed(lines) if line.strip()), "it said nothing").removeprefix("Error: ")
        if code == 2:
            raise LostattnError(f"the worker on {self.device} cannot go on: {stated}")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed ({stated})"
        raise WorkerDied(f"the worker on {self.device} {how}: the same command goes on where all workers stopped")


def read_devices(text: str) -> list[str]:
    """`cuda:0,cuda:1` as a list. LostattnError for devices that are not there, or of several kinds."""
    devices = [name.strip() for name in text.split(",")]
    results = [torch_device(name) for name in devices]
    if len({device.type for device in results}) > 1:
        raise LostattnError(f"--devices {text} names several kinds, whose answers may differ: name one kind")
    for name, device in zip(devices, results, strict=True):
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise LostattnError(f"device '{name}' is not there: torch sees {torch.cuda.device_count()} GPU(s)")
    return devices


def sweep_on(
    text: str,
    command: Sequence[str],
    base: str,
    specs: Sequence[str],
    asked: Sequence[Asked],
    out: str | Path,
    settings: EvalSettings,
    calibration: Path | None = None,
) -> dict[str, Any]:
    """As `run_sweep`, with a process of `command` on each of the devices.

    Raises:
        LostattnError: as `run_sweep`, also from a worker. WorkerDied: a worker ended otherwise.
    """
    devices = read_devices(text)
    settings = replace(settings, device=devices[0])

    def spread(work: Work, plans: Plans) -> Sequence[str]:
        answer_on(devices, command, work, plans)
        return ()

    return run_sweep(base, specs, asked, out, settings, calibration, spread)


def answer_on(devices: Sequence[str], command: Sequence[str], work: Work, plans: Plans) -> None:
    """Answer the plans with one process of `command` per device.

    Whatever ends this function or its process ends the workers, too.

    Raises:
        LostattnError: a worker told a user's mistake. WorkerDied: a worker ended otherwise.
    """
    before, total = work.answered(plans), work.total(plans)
    if before == total:
        return
    environment = dict(os.environ)
    if devices[0] == "cpu":  # they share the cores; the report names this process's threads
        torch.set_num_threads(max(1, torch.get_num_threads() // len(devices)))
        environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    logger.info(f"{len(devices)} workers: {', '.join(devices)}")
    rate = Rate("all workers", total, before)
    with _terminated_politely(), ExitStack() as stack:
        workers = [stack.enter_context(_worker(command, device, environment)) for device in devices]
        while [worker for worker in workers if worker.check()]:
            time.sleep(GLANCE)
            if (done := work.answered(plans)) < total:
                rate(done)
    rate(work.answered(plans))


@contextmanager
def _worker(command: Sequence[str], device: str, environment: dict[str, str]) -> Iterator[Worker]:
    """In a session of its own: Ctrl-C reaches this process alone, which ends it. Answers survive a kill at any moment."""
    words = [sys.executable, "-m", "lostattn.surgery.cli", *command[:1], "--worker", "--device", device, *command[1:]]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield Worker(device, process, said)
        finally:
            process.kill()


@contextmanager
def _terminated_politely() -> Iterator[None]:
    """A block that SIGTERM leaves as an exception does."""

    def stop(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent() -> None:
    """End this worker when its parent is gone, however that ended: the pipe of its stdin closes then."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
