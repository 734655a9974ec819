"""Commands on videos: ask, calibrate, eval, trace, and a folder that was patched and saved again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import clips
import pytest
from click.testing import CliRunner
from lostattn.surgery.cli import main
from lostattn.surgery.demo.digits import held_out

pytest.importorskip("av")
CliResult = Any


def run(*arguments: Any) -> CliResult:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def questions() -> list[Any]:
    return held_out(3)


@pytest.fixture(scope="module")
def data(questions: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's questions about videos that show the picture for a second."""
    folder = tmp_path_factory.mktemp("videos")
    rows = []
    for i, q in enumerate(questions):
        clips.write_clip(folder / f"{i}.mp4", [q.image] * 8)
        rows.append(
            {"video": f"{i}.mp4", "frames": 4, "question": q.question, "answer": q.answer, "options": q.options}
        )
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def patched(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("patched") / "sap"
    assert run("patch", "--layers", "1-5", "--heads", "all", demo, out).exit_code == 0
    return out


def test_ask(demo: Path, patched: Path, data: Path, questions: list[Any]) -> None:
    found = run(
        "ask", patched, "--compare", demo, "--video", data / "0.mp4", "--frames", 4, questions[0].question, "--json"
    )
    assert found.exit_code == 0, found.output
    first, second = json.loads(found.stdout)
    assert (
        first["patched"] and not second["patched"] and set(first["paths"]) <= {"closed", "any_mask"} and first["paths"]
    )
    rows = run("ask", patched, "--data", data / "rows.jsonl", "--json")
    assert rows.exit_code == 0 and len(json.loads(rows.stdout)) == 3
    assert json.loads(rows.stdout)[0]["answers"][0]["answer"] == first["answer"]


@pytest.mark.parametrize(
    "more, says",
    [
        (["--video", "gone.mp4", "What?"], "gone.mp4"),
        (["--video", "a", "--image", "b", "What?"], "not several"),
        (["--video", "VIDEO"], "--video needs a QUESTION"),
        (["--video", "TEXT", "What?"], "cannot be read"),
        (["--image", "VIDEO", "--frames", "3", "What?"], "belongs to --video"),
        (["--video", "VIDEO", "--boxes", "b.json", "What?"], "leave --boxes out"),
    ],
)
def test_wrong_wishes(more: list[str], says: str, patched: Path, data: Path) -> None:
    named = {"VIDEO": str(data / "0.mp4"), "TEXT": str(data / "rows.jsonl")}
    found = run("ask", patched, *[named.get(word, word) for word in more])
    assert found.exit_code == 2 and says in found.output and len(found.output.strip().splitlines()) <= 4


def test_calibrate_and_eval(demo: Path, patched: Path, data: Path, tmp_path: Path) -> None:
    rows = data / "rows.jsonl"
    found = run("calibrate", demo, "--data", rows, "--out", tmp_path / "c.json")
    assert found.exit_code == 0, found.output
    mme = [
        {
            "videoID": str(i),
            "question": q["question"],
            "options": ["A. yes", "B. no"],
            "answer": "AB"[i % 2],
            "duration": "short",
        }
        for i, q in enumerate(map(json.loads, rows.read_text().splitlines()))
    ]
    (data / "test.jsonl").write_text("\n".join(map(json.dumps, mme)))
    asked = ["--task", "videomme", "--data", data / "test.jsonl", "--max-tokens", 4]
    found = run("eval", demo, patched, *asked, "--frames", 4, "--out", tmp_path / "r", "--json")
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["results"][0]["n"] == 3
    refused = run("eval", demo, "--task", "digits", "--limit", 2, "--frames", 4, "--out", tmp_path / "x")
    assert refused.exit_code == 2 and "--frames is for videos" in refused.output


def test_a_folder_saved_again_answers_a_video(patched: Path, data: Path, questions: list[Any], tmp_path: Path) -> None:
    from lostattn.patches import load_patched

    load_patched(patched).save_pretrained(tmp_path / "again")
    answers = [
        run("ask", f, "--video", data / "0.mp4", questions[0].question).stdout for f in (patched, tmp_path / "again")
    ]
    assert answers[0] == answers[1] and answers[0].strip()


def test_videos_that_are_normalised_otherwise(demo: Path, tmp_path: Path) -> None:
    """A video processor's own mean and std are in the plan, and priors of videos go by them."""
    from lostattn.patches.plan import Pixels, Plan
    from lostattn.surgery.processing import read_pixels, read_video_pixels

    assert read_video_pixels(demo) is None
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    assert read_video_pixels(tmp_path) is None
    own = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(own))
    found = read_video_pixels(tmp_path)
    assert found == Pixels((0.1, 0.2, 0.3), (0.5, 0.5, 0.5)) and read_pixels(tmp_path) == Pixels((0.5,) * 3, (0.5,) * 3)
    plan = Plan("qwen2_vl", "noise", "paper", "raw", "all", 2, 4, 2, pixels=read_pixels(tmp_path), video_pixels=found)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
