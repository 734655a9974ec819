"""Runs that are killed and started again, and what they leave compared with that of a run that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def environment(tmp_path: Path) -> dict[str, str]:
    """One in which `lostattn` is this checkout, with one thread."""
    place = tmp_path / "path"
    place.mkdir(exist_ok=True)
    if not (place / "lostattn").is_symlink():
        (place / "lostattn").symlink_to(ROOT)
    return {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}


def killed(arguments: list[object], out: Path, part: str, lines: int, env: dict[str, str]) -> None:
    """Run in a process of its own, and kill -9 it when a file of answers that fits `part` has so many lines."""
    command = [sys.executable, "-m", "lostattn.surgery.cli", *map(str, arguments), "--out", str(out)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None and not _as_many(out, part, lines):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it could be killed"
    assert list(out.rglob("*.part.jsonl")), "it was killed between two tasks"


def _as_many(out: Path, part: str, lines: int) -> bool:
    for path in out.glob(part):
        try:
            if path.read_bytes().count(b"\n") >= lines:
                return True
        except FileNotFoundError:  # it became the finished file
            return False
    return False


def assert_same(one: Path, other: Path) -> None:
    """The same files, byte for byte but for times and the command line."""
    names = [sorted(p.relative_to(d).as_posix() for p in d.rglob("*") if p.is_file()) for d in (one, other)]
    assert names[0] == names[1] and not any(n.endswith(".part.jsonl") for n in names[0])
    for name in names[0]:
        assert _without_times(one / name) == _without_times(other / name), name


def _without_times(path: Path) -> Any:
    if path.name in ("eval.json", "sweep.json"):
        report = json.loads(path.read_text())
        for row in report["results"]:
            row.pop("seconds")
        return {k: v for k, v in report.items() if k not in ("command", "seconds")}
    if path.name in ("eval.md", "sweep.md", "sweep.html"):
        return [line for line in path.read_text().replace("<p>", "\n<p>").splitlines() if "Command:" not in line]
    return path.read_bytes()
