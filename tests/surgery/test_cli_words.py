"""The words of the command line: groups in its help, known values, completion in the shell, and what was meant instead."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner
from lostattn.patches import call
from lostattn.patches.family import FAMILIES
from lostattn.patches.mode import MODES
from lostattn.patches.plan import PRESETS, QUERIES, RANK_BY, SCORES
from lostattn.serving.tasks.discover import all_tasks, task_names
from lostattn.surgery.cli import COMMANDS, SECTIONS, main
from lostattn.surgery.commands import choices
from lostattn.surgery.diagnosis import samples
from lostattn.surgery.sweep import ready


def told(*arguments: str) -> str:
    found = CliRunner().invoke(main, list(arguments), prog_name="lostattn")
    assert found.exit_code == 2 and found.stdout == "", found.output
    (line,) = [row for row in found.stderr.splitlines() if row.startswith("Error: ")]
    return line


def test_help_lists_every_command_once_in_five_groups() -> None:
    text = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout
    lines = text.splitlines()
    assert len(SECTIONS) == 5 and [row[:-1] for row in lines if row[:-1] in SECTIONS] == list(SECTIONS)
    for name in COMMANDS:
        (row,) = [row for row in lines if row.startswith(f"  {name} ")]
        assert 30 < len(row) <= 80 and row.endswith("."), row
    assert "..." not in text.replace("[ARGS]...", "") and max(map(len, lines)) <= 80


def test_help_of_bench_is_whole() -> None:
    text = CliRunner().invoke(main, ["bench", "--help"], terminal_width=80).stdout
    assert "..." not in text.replace("[ARGS]...", "") and max(map(len, text.splitlines())) <= 80


LISTED = {
    choices.MODE: sorted(MODES),
    choices.TASK: sorted(all_tasks()),
    choices.PRESET: PRESETS,
    choices.SCORE_RULE: SCORES,
    choices.ROWS: QUERIES,
    choices.RANKING: RANK_BY,
    choices.PATH: call.PATHS,
    choices.TOKENS: samples.TOKENS,
    choices.GRID: ready.READY,
    choices.HARNESS: ("lostattn", "lmms-eval", "vlmevalkit"),
}


@pytest.mark.parametrize("kind", LISTED, ids=lambda kind: kind.what)
def test_choices_are_what_there_is(kind: choices.OneOf) -> None:
    assert list(kind.choices) == list(LISTED[kind])


def test_help_shows_known_values() -> None:
    for command, shown in (
        ("patch", "[paper|reference|efficient]"),
        ("patch", f"[{'|'.join(sorted(MODES))}]"),
        ("patch", "[all|after_image|last]"),
        ("eval", "[transformers|vllm|URL]"),
        ("eval", "[lostattn|lmms-eval|vlmevalkit]"),
        ("ask", "[auto|closed|any_mask|eager]"),
        ("score", f"[{'|'.join(task_names())}]"),
        ("diagnose", "[all|visual|text]"),
        ("trace", "[auto|float32|bfloat16|float16]"),
    ):
        assert shown in CliRunner().invoke(main, [command, "--help"]).stdout, command


def completed(line: str) -> list[str]:
    *words, incomplete = line.split(" ")
    found = BashComplete(main, {}, "lostattn", "_LOSTATTN_COMPLETE").get_completions(words, incomplete)
    return [item.value for item in found]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("ca", ["calibrate"]),
        ("bench p", ["patch", "plans"]),
        ("patch --mode ", sorted(MODES)),
        ("patch --mode no", ["noise"]),
        ("eval m --task p", ["pope"]),
        ("eval m --harness l", ["lostattn", "lmms-eval"]),
        ("sweep --spec t", ["table2", "table8"]),
        ("eval --backend v", ["vllm"]),
        ("trace --dtype b", ["bfloat16"]),
        ("plan --sco", ["--scores"]),
        ("patch --seed 1 --seed 2 --weights l", ["link"]),
    ],
)
def test_completion(line: str, values: list[str]) -> None:
    assert completed(line) == values


def test_the_shells_own_script() -> None:
    code = "from lostattn.surgery.cli import main; main(prog_name='lostattn')"
    environment = {"_LOSTATTN_COMPLETE": "zsh_source", "PATH": "/usr/bin:/bin"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert found.returncode == 0 and "_LOSTATTN_COMPLETE=zsh_complete" in found.stdout


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("evl", "no such command 'evl' (did you mean eval?)"),
        ("bench atention", "did you mean attention?"),
        ("patch a b --mode Nois", "unknown mode 'Nois' (did you mean noise?): choose one of drop, noise"),
        ("patch a b --mode qqq", "unknown mode 'qqq': choose one of"),
        ("patch a b --preset papper", "did you mean paper?"),
        ("ask a q --image i --dtype float23", "unknown dtype 'float23' (did you mean float32?)"),
        ("score --task vmcbnch --responses r", "did you mean vmcbench?"),
        ("plan a --layer 3", "--layers"),
        ("eval a --task pope --out o --backend vlm", "did you mean vllm?"),
        ("sweep a --task pope --out o --spec head", "heads"),
    ],
)
def test_a_mistyped_word_is_told_with_the_nearest(line: str, says: str) -> None:
    assert says in told(*line.split())


def test_a_mistyped_family_or_mode_is_told_where_code_is_bundled() -> None:
    from lostattn.patches.bundle import bundle
    from lostattn.patches.errors import LostattnError

    assert "qwen2_5_vl" in FAMILIES
    with pytest.raises(LostattnError, match=r"no family 'qwen2_5_v' \(did you mean qwen2_5_vl\?\)"):
        bundle("qwen2_5_v", "noise")
    with pytest.raises(LostattnError, match=r"no mode 'noises' \(did you mean noise\?\)"):
        bundle("llava", "noises")


@pytest.mark.parametrize("name", COMMANDS)
def test_short_and_long_help_are_one(name: str) -> None:
    short, long = (CliRunner().invoke(main, [name, flag]).stdout for flag in ("-h", "--help"))
    assert short == long and short
    assert isinstance(main.get_command(click.Context(main), name), click.Command)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("compare {m} {m} --no-bench --bench-repeats 2 --data digits:2 --out {o}", "--bench-repeats changes nothing"),
        ("eval {m} {m} --via lmms-eval --power --task digits --backend vllm --out {o}", "leave it out with --via"),
        ("eval {m} --via lmms-eval --backend vllm --out {o}", "name a task with --task"),
        ("eval {m} --power --task digits --out {o}", "name two or more"),
    ],
)
def test_no_option_is_accepted_and_ignored(words: str, says: str, demo: Path, tmp_path: Path) -> None:
    assert says in told(*words.format(m=demo, o=tmp_path / "o").split())
    assert not (tmp_path / "o").exists()
