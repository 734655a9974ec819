"""Reports: what they say, and that the page stands alone in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from judging_reports import NAMES, bench_report, fake_reply, make_examples, make_folders
from lostattn.serving.judging import compare as compare_module
from lostattn.serving.judging.bench_report import markdown as bench_markdown
from lostattn.serving.judging.bench_report import write_bench
from lostattn.serving.judging.compare import CompareSettings
from lostattn.serving.judging.compare_report import headline, markdown
from lostattn.serving.judging.page import POLICY, page
from lostattn.serving.judging.questions import make_questions
from lostattn.serving.judging.shots import SHOWN, choose_shots
from lostattn.serving.sides import read_sides

pytest.importorskip("matplotlib")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Servers:
    options = ("--made-up",)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any, Any]:
    folders = make_folders(tmp_path_factory.mktemp("models"))
    questions = make_questions(make_examples(30))
    answers = {n: [{"index": i, **asdict(fake_reply(n, q))} for i, q in enumerate(questions)] for n in NAMES}
    sides = read_sides(folders[0], folders[1:])
    settings = CompareSettings(data="some <data> & more")
    report = compare_module._report(sides, questions, answers, bench_report(), Servers(), settings)  # type: ignore[arg-type]
    return report, questions, answers


class Reader(HTMLParser):
    """Text, tags and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = ("src", "href", "xlink:href", "srcset", "action", "data")
        self.addresses += [value or "" for key, value in attrs if key in named]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone(made: Any) -> None:
    text = page(*made)
    found = Reader(text)
    assert "script" not in found.tags and found.tags.count("svg") == 6 and found.tags.count("img") == SHOWN
    assert all(a.startswith(("data:", "#")) for a in found.addresses)
    assert not re.search(r"url\((?!#)|@import|\son\w+=", text)
    assert "<b>0</b>" not in text and "<script>alert" not in text
    assert "<script>alert(1)</script>" in found.text and "some <data> & more" in found.text
    for word in (*NAMES, "McNemar", "hardware", "vllm", "lostattn 1"):
        assert word in found.text
    assert text == page(*made), "the same report gives the same page"


def test_charts_use_the_pages_ink(made: Any) -> None:
    text = page(*made)
    assert "var(--ink)" in text and "#010203" not in text and "#040506" not in text
    ids = re.findall(r'\sid="([^"]+)"', text)
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', text))
    assert used <= set(ids)


def test_questions_that_changed_come_first(made: Any) -> None:
    _, questions, answers = made
    shots = choose_shots(questions, answers)
    assert len(shots) == SHOWN
    for shot in shots[: SHOWN // 2]:
        assert len({right for *_, right in shot.answers}) == 2
    same = dict.fromkeys(NAMES, answers["base"])
    assert len(choose_shots(questions, same)) == SHOWN
    assert len(choose_shots(questions[:3], {n: a[:3] for n, a in answers.items()})) == 3


def test_markdown(made: Any) -> None:
    report, *_ = made
    text = markdown(report)
    for line in [x for x in text.splitlines() if x.startswith("|")]:
        assert line.count("|") >= 3
    widths = [line.count("|") for line in text.splitlines() if line.startswith("| base") or line.startswith("| sap")]
    assert len(widths) >= 8 and "1.30x [1.17, 1.49]" in text and "some <data>" in text
    assert [e["throughput"] for e in headline(report)] == ["1.30x", "1.60x"]
    without = markdown(report | {"bench": None})
    assert "tokens/s" not in without and "throughput" not in headline(report | {"bench": None})[0]


def test_bench_files(tmp_path: Path) -> None:
    report = bench_report()
    written = write_bench(report, tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(report))
    for path in written[2:]:
        assert path.read_bytes().startswith(b"\x89PNG") and f"({path.name})" in (tmp_path / "bench.md").read_text()
    assert "| sap | 1024 | 8 | 1.02, 1.30x [1.17, 1.49] | - |" in bench_markdown(report)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(made: Any, tmp_path: Path, width: int) -> None:
    """It renders, fetches nothing, and the browser has nothing to complain about."""
    text = page(*made)
    complaints, hosts, shot = browse(text, tmp_path / "page", width)
    assert not complaints and not [h for h in hosts if h in text]
    from PIL import Image

    with Image.open(shot) as image:
        colours = image.convert("RGB").resize((64, 64)).getcolors(4096)
        assert image.width == width and len(colours or ()) > 20


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_the_browser_would_tell(tmp_path: Path) -> None:
    """A page that does fetch and err is seen to do so, unless its policy forbids it."""
    text = '<body><img src="http://images.invalid/x.png"><script>console.error("broken")</script>'
    complaints, hosts, _ = browse(text, tmp_path / "loose", 390)
    assert "images.invalid" in hosts and any("broken" in c for c in complaints)
    complaints, hosts, _ = browse(
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">{text}', tmp_path / "strict", 390
    )
    assert "images.invalid" not in hosts and complaints and not any("broken" in c for c in complaints)


def browse(text: str, folder: Path, width: int) -> tuple[list[str], set[str], Path]:
    """A page in the browser: what its console says, which hosts were asked (the browser's own among them), a picture."""
    folder.mkdir()
    path, log, shot = folder / "page.html", folder / "net.json", folder / "shot.png"
    path.write_text(text, encoding="utf-8")
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--disable-background-networking", "--disable-component-update", "--no-first-run", "--enable-logging=stderr",
        f"--log-net-log={log}", f"--window-size={width},1600", f"--screenshot={shot}", path.as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    hosts = set(re.findall(r'"url":\s*"(?:https?|wss?)://([^/"]+)', log.read_text(encoding="utf-8", errors="replace")))
    return [line for line in run.stderr.splitlines() if "CONSOLE" in line], hosts, shot
