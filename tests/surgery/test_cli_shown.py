"""What the command line shows: tables that fit, bars where somebody watches, plain lines in a pipe."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from lostattn.serving.evaluation.rate import Rate
from lostattn.serving.progress import LazyBar, bar_of, set_display
from lostattn.surgery import doctor
from lostattn.surgery.checkpoint import hashing
from lostattn.surgery.cli import main
from lostattn.surgery.commands import telling
from lostattn.surgery.commands.table import table_text
from lostattn.surgery.commands.telling import Teller
from rich.console import Console

WORD = st.text("abc_-.0123456789", min_size=1, max_size=25)
CELL = st.lists(WORD, max_size=8).map(" ".join)


Terminal = tuple[Teller, io.StringIO]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """The command line's stderr on a terminal of 80 columns, while a command runs."""
    out = io.StringIO()
    tell = Teller(Console(file=out, force_terminal=True, width=80, color_system=None))
    for module in ("telling", "calibrate"):
        monkeypatch.setattr(f"lostattn.surgery.commands.{module}.tell", tell)
    with telling.telling():
        yield tell, out


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), min_size=2, max_size=6)))
def test_every_table_fits_and_keeps_every_word_whole(rows: list[list[str]]) -> None:
    text = table_text([cell or "x" for cell in rows[0]], rows[1:], 80)
    assert max(map(len, text.splitlines())) <= 80 and "\x1b" not in text
    words = text.split()
    for cell in (cell for row in rows[1:] for cell in row):
        for word in cell.split():
            assert word in words


def test_a_table_of_many_columns_is_turned_round() -> None:
    text = table_text(["name", *(f"number-{i}" for i in range(12))], [["a", *"b" * 12], ["c", *"d" * 12]], 80)
    assert text.splitlines()[:3] == ["name       a  c", "---------  -  -", "number-0   b  d"]
    assert len(text.splitlines()) == 14


def test_wide_tables_become_blocks() -> None:
    rows = [["a", "x" * 50, "y" * 50], ["b", "z" * 50, ""]]
    assert table_text(["name", "one", "two"], rows, 80).splitlines() == [
        "name  a",
        f"one   {'x' * 50}",
        f"two   {'y' * 50}",
        "",
        "name  b",
        f"one   {'z' * 50}",
        "two",
    ]


def test_a_narrow_table_is_as_wide_as_its_cells() -> None:
    text = table_text(["metric", "value"], [["accuracy", "91.20 %"], ["n", 500]], 80)
    assert text.splitlines() == [
        "metric    value",
        "--------  -------",
        "accuracy  91.20 %",
        "n         500",
    ]
    assert "\x1b[" in table_text(["a"], [["[bold]b"]], 80, colours=True) and "[bold]b" in table_text(
        ["a"], [["[bold]b"]], 80
    )


@pytest.mark.parametrize("command", ["families", "modes", "tasks", "doctor"])
def test_listings_fit_80_columns_without_codes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    long = doctor.Check("vllm plugin", "ok", "knows " + ", ".join(f"Sap{i}ForConditionalGeneration" for i in range(9)))
    monkeypatch.setattr(doctor, "diagnose", lambda: [long])
    found = CliRunner().invoke(main, [command], env={"COLUMNS": "300"})
    assert found.exit_code == 0 and "\x1b" not in found.output
    assert max(map(len, found.stdout.splitlines())) <= 100 and found.stdout.count("\n") > 5
    tables = [row for row in found.stdout.splitlines() if not row.endswith((":", "answers:"))]
    assert max(map(len, tables)) <= 80


def test_a_bar_tells_done_total_rate_and_rest_and_lines_stand_above_it(terminal: Terminal) -> None:
    tell, out = terminal
    bar = bar_of("answers", 40, 10)
    assert bar is not None
    for done in range(11, 41):
        bar(done)
        if done == 20:
            logging.getLogger("lostattn.somewhere").info("a line in between [not markup]")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "40/40" in text and "/s" in text and "0:00:00" in text and "answers" in text
    lines = [row.strip() for row in re.split(r"[\r\n]", text)]
    assert "a line in between [not markup]" in lines, "a whole line of its own"
    tell("afterwards")
    assert tell._progress is None, "a full bar ends the display"


def test_rate_and_counters_use_the_bar_where_there_is_one(terminal: Terminal) -> None:
    _, out = terminal
    rate, lazy = Rate("pope, qwen", 4, 1), LazyBar("questions")
    assert "1 of 4 answers were there before" in out.getvalue()
    rate(2), rate(4)
    assert lazy(1, 2) and lazy(2, 2)
    text = out.getvalue()
    assert "4/4" in text and "2/2" in text and "answers, " not in text
    count = telling.Counter("calibrating")
    count(1, 1)
    assert "calibrating" in out.getvalue()


def test_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with telling.telling():
        assert not LazyBar("x")(1, 2) and bar_of("x", 3) is None
        count = telling.Counter("calibrating")
        for done in range(1, 21):
            count(done, 20)
        logging.getLogger("lostattn.somewhere").info("a line")
        logging.getLogger("lostattn.somewhere").debug("a detail")
    logging.getLogger("lostattn.somewhere").info("afterwards")
    found = capsys.readouterr()
    assert found.out == "" and found.err.splitlines()[0] == "calibrating 1/20" and len(found.err.splitlines()) == 12
    assert found.err.endswith("20/20\na line\n")


def test_an_error_ends_the_display(terminal: Terminal, tmp_path: Path) -> None:
    tell, out = terminal
    bar = bar_of("x", 3)
    assert bar is not None
    bar(1)
    found = CliRunner().invoke(main, ["show", str(tmp_path / "none")])
    assert found.exit_code == 2 and tell._progress is None and out.getvalue().count("1/3") >= 1


def test_hashed_bytes_move_a_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, terminal: Terminal) -> None:
    monkeypatch.setattr(hashing, "TOLD_FROM", 1)
    (tmp_path / "w").write_bytes(bytes(5 << 20))
    tell, out = terminal
    plain = hashing.sha256_file(tmp_path / "w")
    with hashing.bytes_told("writing", 5 << 20):
        assert hashing.sha256_file(tmp_path / "w") == plain
    assert "writing (MiB)" in out.getvalue() and "5/5" in out.getvalue() and tell._progress is None
    shown = out.getvalue()
    set_display(None)
    with hashing.bytes_told("writing", 5 << 20):
        assert hashing.sha256_file(tmp_path / "w") == plain
    assert out.getvalue() == shown


def test_json_stands_alone_on_stdout_while_bars_are_shown(terminal: Terminal, demo: Path, tmp_path: Path) -> None:
    _, out = terminal
    found = CliRunner().invoke(
        main, ["calibrate", str(demo), "--data", "digits:3", "--out", str(tmp_path / "c.json"), "--json"]
    )
    assert found.exit_code == 0 and json.loads(found.stdout)["samples"] == 3 and "3/3" in out.getvalue()
