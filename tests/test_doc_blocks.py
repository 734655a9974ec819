"""Every block of README and docs runs as it stands, on the demo's model, or says why it does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import PAGES, ROOT, as_shown, blocks, calls, scripts
from doc_server import shims

RUN = [page for page in PAGES if scripts(page)]
QUICK_START = ROOT / "docs" / "quick-start.md"
LINKS = ("surgery", "docs", "patches", "tests")
Runner = Callable[[Path, Path], str]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def shell() -> Iterator[Callable[[str, Path], subprocess.CompletedProcess[str]]]:
    """Runs text in bash; `lostattn` and `python` are answered by one process that has imported torch."""
    folder = Path(tempfile.mkdtemp(prefix="blocks-"))
    address = str(folder / "s")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    server = subprocess.Popen([sys.executable, str(ROOT / "tests" / "doc_server.py"), address], env=environment)
    shims(folder, address)
    while not os.path.exists(address):
        assert server.poll() is None, "the server of the blocks died"
        time.sleep(0.2)
    environment["PATH"] = f"{folder}:{environment['PATH']}"

    def run(text: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text], cwd=cwd, env=environment, capture_output=True, text=True
        )

    yield run
    server.kill()
    server.wait()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, shell: Any) -> Path:
    """The folder that the quick start's set-up makes, beside what the demo wrote."""
    root = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "surgery" / "demo" / "model", root / "lostattn-demo" / "base")
    (root / "docs").symlink_to(ROOT / "docs")
    done = shell(scripts(QUICK_START)[0][1], root)
    assert done.returncode == 0, done.stderr
    return root / "out"


@pytest.fixture
def run_page(start: Path, shell: Any) -> Runner:
    """Runs a page's blocks in a copy of that folder; a test may look into it afterwards."""

    def run(page: Path, folder: Path) -> str:
        shutil.copytree(start, folder)
        for link in LINKS:
            (folder / link).symlink_to(ROOT / link)
        printed = ""
        for kind, text in scripts(page)[page == QUICK_START :]:
            for command, shown in calls(text) if kind == "session" else [(text, "")]:
                done = shell(f"{command} 2>&1" if shown else command, folder)
                assert done.returncode == 0, f"{name(page)}:\n{command}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
                assert not shown or as_shown(shown, done.stdout), f"{name(page)} shows\n{shown}\nnow\n{done.stdout}"
                printed += done.stdout
        return printed

    return run


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name)
def test_blocks_run(page: Path, run_page: Runner, tmp_path: Path) -> None:
    run_page(page, tmp_path / "work")
    if page.name == "report-formats.md":
        for file, path, keys in documented(page):
            assert found_keys(tmp_path / "work" / file, path) == keys, f"{file} {path}"


def documented(page: Path) -> Iterator[tuple[str, str, set[str]]]:
    """(file, place in it, keys) of every table behind `<!-- keys of FILE PLACE -->`."""
    text = page.read_text(encoding="utf-8")
    for file, path, table in re.findall(r"<!-- keys of (\S+)(?: (\S+))? -->\n\n((?:\|.*\n)+)", text):
        first = [row.split("|")[1] for row in table.splitlines()[2:]]
        yield file, path, {key for cell in first for key in re.findall(r"`([^`]+)`", cell)}


def found_keys(file: Path, path: str) -> set[str]:
    """Keys of the objects at a place such as `results[].accuracy`, of all of them together."""
    text = file.read_text(encoding="utf-8")
    here: list[Any] = (
        [json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else [json.loads(text)]
    )
    for part in filter(None, path.split(".")):
        here = [value.get(part.removesuffix("[]")) for value in here if isinstance(value, dict)]
        if part.endswith("[]"):
            here = [x for values in here if values for x in (values.values() if isinstance(values, dict) else values)]
    return {key for value in here if isinstance(value, dict) for key in value}


def test_the_plan_format_is_documented() -> None:
    from lostattn.patches.plan import Plan

    ((_, _, keys),) = documented(ROOT / "docs" / "reference" / "plan-format.md")
    assert keys - {"format", "low", "high", "rank_by", "mean", "std", "rescale"} == {f.name for f in fields(Plan)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_not_run_says_why(page: Path) -> None:
    for block in blocks(page):
        if block.mark == "not run":
            assert len(block.why) > 5, block.text
        if block.mark == "tested by":
            file = block.why.split(":")[0].strip()
            assert (ROOT / file).is_file(), f"{name(page)}: no {file}"
