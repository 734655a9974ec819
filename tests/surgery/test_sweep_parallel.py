"""`lostattn sweep` on several devices and over Ray: the same files as from one process, and what goes wrong on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lostattn.patches.errors import LostattnError
from lostattn.surgery.checkpoint.source import resolve_source
from lostattn.surgery.cli import main
from lostattn.surgery.sweep.devices import Worker, WorkerDied, read_devices
from lostattn.surgery.sweep.over_ray import cluster, measure_on
from lostattn.surgery.sweep.tables import grid_table
from lostattn.surgery.sweep.work import measure_heads
from resumed import assert_same, environment


def lostattn(*arguments: object) -> Result:
    found = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="lostattn")
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exc_info
    return found


@pytest.fixture(scope="session")
def wanted(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    spec = tmp_path_factory.mktemp("spec") / "two.yaml"
    spec.write_text("modes: [noise]\nlayers: [[0, 1], 5]\nheads: all\n")
    return ["sweep", demo, "--spec", spec, "--task", "digits", "--limit", 24, "--batch", 4]


@pytest.fixture(scope="session")
def one(wanted: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of it."""
    out = tmp_path_factory.mktemp("one") / "out"
    assert lostattn(*wanted, "--out", out).exit_code == 0
    return out


@pytest.fixture
def workers_find_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """In processes that are started, too, `lostattn` is this checkout; what lies on the path stays there."""
    found = environment(tmp_path)
    found["PYTHONPATH"] += os.pathsep + os.environ.get("PYTHONPATH", "")
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, found[name])
    return found


def started(wanted: list[object], *more: object, env: dict[str, str]) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "lostattn.surgery.cli", *map(str, [*wanted, *more])]
    return subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def descendants(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            yield child
            yield from descendants(child)


def until(true: Callable[[], Any], seconds: float = 240) -> Any:
    """The first true value; fails the test if there is none, long after there should be one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_two_processes_write_what_one_does(
    wanted: list[object], one: Path, workers_find_us: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = lostattn(*wanted, "--out", out, "--devices", "cpu,cpu")
    assert found.exit_code == 0, found.output
    assert "2 workers: cpu, cpu" in found.stderr and "all workers: 72/72 answers" in found.stderr
    assert "loading" not in found.stderr, "the workers have the models"
    assert_same(out, one)
    again = lostattn(*wanted, "--out", out, "--devices", "cpu,cpu")
    assert again.exit_code == 0 and "workers" not in again.stderr and again.stdout == found.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(
    number: signal.Signals, wanted: list[object], one: Path, workers_find_us: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with started(wanted, "--out", out, "--devices", "cpu,cpu", env=workers_find_us) as parent:
        until(lambda: parent.poll() is not None or list(out.glob("digits/*.part.jsonl")))
        workers = list(descendants(parent.pid))
        parent.send_signal(number)
        assert parent.wait() == (143 if number == signal.SIGTERM else -9), "it was over before it could be ended"
    assert len(workers) == 2
    until(lambda: not any(map(running, workers)))
    assert not (out / "sweep.json").exists() and list(out.glob("digits/*.part.jsonl"))
    assert lostattn(*wanted, "--out", out).exit_code == 0
    assert_same(out, one)


@pytest.mark.slow
def test_a_workers_mistake_is_the_sweeps(wanted: list[object], workers_find_us: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "out" / "digits"
    folder.mkdir(parents=True)
    (folder / "original.json").write_text('{"batch": 5}')
    (folder / "original.part.jsonl").write_text("")
    found = lostattn(*wanted, "--out", tmp_path / "out", "--devices", "cpu")
    assert found.exit_code == 2 and not (tmp_path / "out" / "sweep.json").exists()
    assert "the worker on cpu cannot go on: " in found.stderr and "holds answers of another run" in found.stderr


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        (
            "print('note: x'); print('Error: choose another --out'); exit(2)",
            LostattnError,
            "go on: choose another --out$",
        ),
        ("print('TypeError: oh\\n'); exit(1)", WorkerDied, r"failed \(TypeError: oh\): the same command"),
        ("exit(1)", WorkerDied, "said nothing"),
        ("import os; os.kill(os.getpid(), 9)", WorkerDied, "on cuda:1 was killed by SIGKILL: the same command"),
    ],
)
def test_how_a_worker_ended_is_one_sentence(code: str, kind: type[Exception], told: str) -> None:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=said)
        process.wait()
        with pytest.raises(kind, match=told):
            Worker("cuda:1", process, said).check()


def test_a_worker_that_died_ends_the_command_with_1(
    wanted: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    found = lostattn(*wanted, "--out", tmp_path / "out", "--devices", "cpu,cpu")
    assert found.exit_code == 1 and found.stderr.count("Error: the worker on cpu failed (it said nothing)") == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--devices", "cpu,"], "unknown device ''"),
        (["--devices", "cpu,xpu"], "several kinds"),
        (["--devices", "gpu0"], "unknown device 'gpu0'"),
        (["--devices", "cpu", "--device", "cpu"], "--device and --devices all say where"),
        (["--devices", "cpu", "--ray"], "--devices and --ray all say where"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    more: list[str], told: str, wanted: list[object], tmp_path: Path
) -> None:
    found = lostattn(*wanted, "--out", tmp_path / "out", *more)
    assert found.exit_code == 2 and told in found.stderr and not (tmp_path / "out").exists()


def test_devices_are_read() -> None:
    assert read_devices("cpu, cpu") == ["cpu", "cpu"]


def test_without_ray_it_is_told(wanted: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    found = lostattn(*wanted, "--out", tmp_path / "out", "--ray", "local")
    assert found.exit_code == 2 and "pip install 'lostattn[ray]'" in found.stderr and not (tmp_path / "out").exists()


def test_no_cluster_is_told(wanted: list[object], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    found = lostattn(*wanted, "--out", tmp_path / "out", "--ray", "nonsense:x")
    assert found.exit_code == 2 and "no Ray cluster at 'nonsense:x'" in found.stderr


@pytest.mark.slow
def test_ray_gives_the_same_answers_though_a_worker_is_killed(
    wanted: list[object], one: Path, workers_find_us: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    whole = {path.name: path.read_text() for path in one.glob("digits/*.jsonl")}
    (out / "digits").mkdir(parents=True)
    for name in ("original.json", "original.jsonl"):  # answered before
        (out / "digits" / name).write_bytes((one / "digits" / name).read_bytes())

    def worker(pid: int) -> int | None:
        names = {p: Path(f"/proc/{p}/cmdline") for p in descendants(pid) if running(p)}
        return next((p for p, path in names.items() if b"Worker.answer" in path.read_bytes()), None)

    with started(wanted, "--out", out, "--ray", "local", env=workers_find_us) as driver:
        os.kill(until(lambda: worker(driver.pid)), signal.SIGKILL)
        told = driver.communicate()[1]
    assert driver.returncode == 0 and "worker(s) of Ray, each with one CPU" in told, told
    assert "Ray: 24 of 72 answers were there before" in told and "Ray: 72/72 answers" in told
    assert {path.name: path.read_text() for path in out.glob("digits/*.jsonl")} == whole
    reports = [json.loads((folder / "sweep.json").read_text()) for folder in (out, one)]
    assert grid_table(reports[0], "two") == grid_table(reports[1], "two")
    assert "of Ray" in reports[0]["notes"][-1]


@pytest.mark.slow
def test_heads_are_measured_over_ray_as_here(demo: Path, workers_find_us: dict[str, str]) -> None:
    pytest.importorskip("ray")
    source = resolve_source(demo)
    with cluster("local") as found:
        assert measure_on(found, source, "auto") == measure_heads(source, "auto", "cpu")
