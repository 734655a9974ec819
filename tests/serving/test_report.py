"""Reports: what they say, and that their pages stand alone in a real browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import made_reports as made
import pytest
from judged import NAMES, bench_report
from lostattn.serving.benchmark.report import markdown as bench_markdown
from lostattn.serving.benchmark.report import page as bench_page
from lostattn.serving.benchmark.report import prediction_rows, write_bench
from lostattn.serving.evaluation.page import page, write_report
from lostattn.serving.evaluation.report import HEAD, lead, markdown, result_rows
from lostattn.serving.pages.charts import lines, svg
from lostattn.serving.pages.forest import forest
from lostattn.serving.pages.render import POLICY
from lostattn.surgery.demo.report import page as demo_page
from lostattn.surgery.diagnosis.report import page as diagnosis_page
from lostattn.surgery.sweep.report import page as sweep_page
from PIL import Image

pytest.importorskip("matplotlib")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES: dict[str, Callable[[], str]] = {
    "eval": lambda: page(*made.evaluation(2, 3)),
    "eval of one model": lambda: page(*made.evaluation(3, 1)),
    "compare of many": lambda: page(*made.evaluation(10, 12, "compare", True)),
    "compare without loads": lambda: page(
        {**made.evaluation(1, 2, "compare")[0], "bench": made.benchmark(NAMES[:2], False)}
    ),
    "bench": lambda: bench_page(made.benchmark(made.NAMES[:7])),
    "sweep": lambda: sweep_page(made.sweep()),
    "diagnose": lambda: diagnosis_page(made.diagnosis()),
    "demo": lambda: demo_page(made.demo(), Path("no picture")),
}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {kind: make() for kind, make in PAGES.items()}


class Reader(HTMLParser):
    """Text, tags and addresses of a page; the tags have to close in order."""

    VOID = {"meta", "link", "img", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        named = ("src", "href", "xlink:href", "srcset", "action", "data")
        self.addresses += [value or "" for key, value in attrs if key in named]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("kind", PAGES)
def test_pages_stand_alone(pages: dict[str, str], kind: str) -> None:
    text = pages[kind]
    found = Reader(text)
    assert "script" not in found.tags and POLICY in html.unescape(text)
    assert all(a.startswith(("data:", "#")) for a in found.addresses)
    assert (
        not re.search(r"url\((?!#)|@import|<[^>]*\son\w+=|https?://(?!example)", text) and "<script>alert" not in text
    )
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert set(re.findall(r'(?:url\(#|href="#)([\w-]+)', text)) <= set(ids)
    assert "#010203" not in text and "#040506" not in text
    assert text == PAGES[kind](), "the same report gives the same page"


def test_an_evaluation_says_what_it_found(pages: dict[str, str]) -> None:
    found = Reader(pages["compare of many"])
    for word in (
        *made.NAMES,
        *made.TASKS,
        "loses accuracy",
        "no loss larger than 1 point",
        "McNemar",
        "H200",
        "vllm 0.32.0",
    ):
        assert word in found.text
    assert found.tags.count("img") == 50 and found.tags.count("circle") >= 100
    assert "Predicted" not in pages["eval"] and "Speed and memory" not in pages["eval"]
    assert (
        "No load was measured." in pages["compare without loads"]
        and "verdict" not in pages["eval of one model"].split("<main>")[1][:999]
    )
    assert 'aria-label="chart of visual"' in pages["bench"] and "Measured beside the prediction" in pages["bench"]
    assert "<b>83.22</b>" in pages["sweep"] and "**" not in Reader(pages["sweep"]).text


def test_report_files(tmp_path: Path) -> None:
    report, pictures = made.evaluation(2, 4, "compare", True)
    written = write_report(report, tmp_path, pictures)
    assert [p.name for p in written] == ["compare.json", "compare.md", "compare.html"]
    assert json.loads(written[0].read_text()) == json.loads(json.dumps(report))
    text = written[1].read_text()
    assert text == markdown(report) and lead(report) in text and "128 text tokens" in text and "tokens/s" in text
    for block in text.split("\n\n"):
        rows = [re.sub(r"\\\|", "", row).count("|") for row in block.splitlines() if row.startswith("|")]
        assert len(set(rows)) <= 1
    without = {k: v for k, v in report.items() if k not in ("command_name", "bench", "changed")}
    assert [p.name for p in write_report(without, tmp_path)] == ["eval.json", "eval.md", "eval.html"]
    assert "tokens/s" not in markdown(without)


def test_result_rows_are_few_and_short() -> None:
    report, _ = made.evaluation(1, 4)
    rows = result_rows(report["results"])
    assert len(HEAD) == 8 and all(len(row) == 8 for row in rows) and rows[0][3:7] == [""] * 4
    assert rows[2][:2] == ["pope", "sap-noise"] and rows[2][4] == "loses accuracy" and rows[2][7] == "2 / 0"
    assert re.fullmatch(r"-1\d\.\d \[-1\d\.\d, -1\d\.\d\]", rows[2][3])


def test_the_verdict_in_a_sentence() -> None:
    assert lead(made.evaluation(1, 1)[0]) == ""
    one = lead(made.evaluation(1, 2)[0])
    assert one.startswith("sap-vision: ") and one.endswith(".")
    many = lead(made.evaluation(3, 4)[0])
    assert (
        many.startswith("2 of 3 models lose accuracy on a task or more: sap-noise, sap-uniform.")
        and "of 9 comparisons" in many
    )
    several = lead(made.evaluation(10, 2)[0])
    assert "no loss larger than 1 point on mmmu, realworldqa" in several and "possible)" in several


def test_lanes_of_a_forest() -> None:
    def row(value: float, half: float) -> dict[str, Any]:
        difference = {"difference": value, "low": value - half, "high": value + half}
        return {"name": "m", "number": 1, "difference": difference, "right": "", "verdict": "loses accuracy"}

    found = forest([("a", "", [row(-0.01, 0.005), row(0.0, 0.005)]), ("b", "", [row(-0.6, 0.01)])], 0.01)
    (first, second), (far,) = (group.lanes for group in found.groups)
    assert 0 < found.margin[0] < found.zero < found.margin[1] < 100 and second.at == pytest.approx(found.zero)
    assert first.at == pytest.approx(found.margin[0]) and first.ends[0] < first.at < first.ends[1]
    assert far.beyond == "<" and not first.beyond and first.text == "-1.0 [-1.5, -0.5]"
    assert [text for _, text in found.ticks if text == "0"] and 3 <= len(found.ticks) <= 8
    assert forest([], 0.01).zero == 50


def test_names_in_charts_are_text() -> None:
    text = svg(
        lines("t", "x", "y", {"$a_{": [(1, 2, 1, 3)], "_b": [(1, 2, 1, 3)], made.HOSTILE: [(2, 1, 1, 1)]}),
        (5, 3),
        '"<b>',
    )
    assert "$a_{" in text and " _b" in text and "&lt;script" in text and "<b>" not in text and "xmlns" not in text


def test_bench_files(tmp_path: Path) -> None:
    report = bench_report()
    written = {p.name: p for p in write_bench(report, tmp_path)}
    assert json.loads(written["bench.json"].read_text()) == json.loads(json.dumps(report))
    pictures = [p for p in written.values() if p.suffix == ".png"]
    for path in pictures:
        assert path.read_bytes().startswith(b"\x89PNG") and f"({path.name})" in written["bench.md"].read_text()
    assert len(pictures) == 4 and "tokens/s" in written["bench.html"].read_text()
    assert "| sap | 1024 | 8 | 1.02, 1.30x [1.17, 1.49] | - |" in bench_markdown(report)
    assert prediction_rows(report)[0] == [
        "sap",
        "256",
        "8",
        "1.30x [1.17, 1.49]",
        "1.30x [1.17, 1.49]",
        "1.40x",
        "0.25x",
        "0.25x",
    ]
    assert bench_markdown(made.benchmark(loads=False)).count("![") == 0


MEASURE = """
<iframe style="width: WIDTHpx; height: 3000px; border: 0"></iframe><pre></pre><script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const inside = frame.contentDocument;
  inside.querySelectorAll("details").forEach(d => { d.open = true; });
  const root = inside.scrollingElement, broken = [];
  inside.querySelectorAll(".what, .badge, .num, .right, td:not(.long)").forEach(e => {
    const text = e.textContent.trim(), range = inside.createRange();
    range.selectNodeContents(e);
    const lines = new Set([...range.getClientRects()].map(r => Math.round(r.top / 6))).size;
    if (lines > 1 && text.length < 30 && !/\\s/.test(text)) broken.push(text);
  });
  document.querySelector("pre").textContent = JSON.stringify({
    scroll: root.scrollWidth, width: root.clientWidth, broken, blocks: inside.querySelectorAll("h2").length,
    answers: inside.querySelectorAll(".what").length});
};
frame.srcdoc = TEXT;
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("kind", PAGES)
def test_nothing_is_cut_on_a_phone(pages: dict[str, str], kind: str, tmp_path: Path) -> None:
    """The page does not scroll sideways, and no word is broken, at 390 pixels."""
    text = json.dumps(pages[kind]).replace("</", "<\\/")
    found = measure(MEASURE.replace("WIDTH", "390").replace("TEXT", text), tmp_path)
    assert found["width"] == 390 and found["scroll"] == 390 and found["blocks"] > 1 and found["broken"] == []
    assert found["answers"] or "eval" not in kind


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_a_broken_word_would_be_seen(tmp_path: Path) -> None:
    page = (
        "<!DOCTYPE html><p class=what style='width: 9px; overflow-wrap: anywhere'>no</p><p style='width: 500px'>x</p>"
    )
    found = measure(MEASURE.replace("WIDTH", "390").replace("TEXT", json.dumps(page).replace("</", "<\\/")), tmp_path)
    assert found["broken"] == ["no"] and found["scroll"] > 390


def measure(text: str, folder: Path) -> dict[str, Any]:
    path = folder / "measure.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><body style='margin: 0'>{text}", encoding="utf-8")
    size = ["--hide-scrollbars", "--window-size=1200,3000", "--virtual-time-budget=5000"]
    command = [*_command(folder), *size, "--dump-dom", path.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r"<pre>(\{.*?\})</pre>", run.stdout)
    assert found, run.stderr[-2000:]
    return dict(json.loads(html.unescape(found[1])))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("kind", ["eval", "bench", "sweep", "diagnose"])
def test_in_a_browser(pages: dict[str, str], kind: str, tmp_path: Path) -> None:
    """It renders, fetches nothing, and the browser has nothing to complain about."""
    complaints, hosts, shot = browse(pages[kind], tmp_path / "page", 390)
    assert not complaints and not [h for h in hosts if h in pages[kind]]
    with Image.open(shot) as image:
        colours = image.convert("RGB").resize((64, 64)).getcolors(4096)
        assert image.width == 390 and len(colours or ()) > 20


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_the_browser_would_tell(tmp_path: Path) -> None:
    """A page that does fetch and err is seen to do so, unless its policy forbids it."""
    text = '<body><img src="http://images.invalid/x.png"><script>console.error("broken")</script>'
    complaints, hosts, _ = browse(text, tmp_path / "loose", 390)
    assert "images.invalid" in hosts and any("broken" in c for c in complaints)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    complaints, hosts, _ = browse(policy + text, tmp_path / "strict", 390)
    assert "images.invalid" not in hosts and complaints and not any("broken" in c for c in complaints)


def _command(folder: Path) -> list[str]:
    return [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
    ]


def browse(text: str, folder: Path, width: int) -> tuple[list[str], set[str], Path]:
    """A page in the browser: what its console says, which hosts were asked (the browser's own among them), a picture."""
    folder.mkdir()
    path, log, shot = folder / "page.html", folder / "net.json", folder / "shot.png"
    path.write_text(text, encoding="utf-8")
    more = ["--enable-logging=stderr", f"--log-net-log={log}", f"--window-size={width},1600", f"--screenshot={shot}"]
    run = subprocess.run([*_command(folder), *more, path.as_uri()], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    hosts = set(re.findall(r'"url":\s*"(?:https?|wss?)://([^/"]+)', log.read_text(encoding="utf-8", errors="replace")))
    return [line for line in run.stderr.splitlines() if "CONSOLE" in line], hosts, shot
