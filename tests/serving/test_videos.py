"""Opening videos: which frames, bounds before decoding, files that are none."""

from __future__ import annotations

import sys
from pathlib import Path

import clips
import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving.data import example_of, read_examples
from lostattn.serving.reading.videos import Bounds, Clip, VideoFile, open_video, spaced
from lostattn.serving.tasks.row import Row
from lostattn.serving.tasks.rows import read_items
from lostattn.serving.tasks.task_videomme import _item

pytest.importorskip("av")


@pytest.mark.parametrize(
    "codec, name", [("mpeg4", "a.mp4"), ("libx264", "a.mkv"), ("libvpx-vp9", "a.webm"), ("mpeg4", "a.avi")]
)
def test_frames_are_those_of_their_places(codec: str, name: str, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / name, clips.shades(20), codec=codec)
    clip = open_video(path, Bounds(8))
    assert clip.places == (0, 3, 5, 8, 11, 14, 16, 19) and clip.total == 20 and clip.size == (64, 48)
    assert all(abs(float(f.mean()) - (10 + 11 * i)) < 4 for f, i in zip(clip.frames, clip.places, strict=True))
    assert clip.metadata()["frames_indices"] == list(clip.places) and abs(clip.rate - 10) < 0.01
    assert open_video(path, Bounds(100)).places == tuple(range(20))


def test_spaced() -> None:
    assert spaced(3, 8) == [0, 1, 2] and spaced(9, 1) == [4] and spaced(100, 3) == [0, 50, 99]
    for count in range(1, 40):
        for wanted in range(1, 20):
            found = spaced(count, wanted)
            assert len(set(found)) == len(found) == min(count, wanted) and found == sorted(found)


@pytest.mark.parametrize(
    "bounds, says",
    [
        (Bounds(8, frame_pixels=64 * 47), "frames of 64 x 48 pixels, more than 3008: make them smaller"),
        (Bounds(8, pixels=7 * 64 * 48), r"8 frames of 64 x 48 pixels, more than 21504 together: take fewer frames"),
        (Bounds(8, seconds=1.5), "lasts longer than 1.5 seconds"),
    ],
)
def test_bounds_hold_before_anything_is_decoded(
    bounds: Bounds, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips.write_clip(tmp_path / "a.mp4", clips.shades(20))
    monkeypatch.setattr("lostattn.serving.reading.videos._decoded", lambda *_: pytest.fail("decoded"))
    with pytest.raises(LostattnError, match=says):
        open_video(path, bounds)


def test_what_is_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = clips.write_clip(tmp_path / "a.mp4", clips.shades(6))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{good}\n#EXT-X-ENDLIST\n".encode()
    files = {
        "empty.mp4": b"",
        "text.mp4": b"hello",
        "cut.mp4": good.read_bytes()[:900],
        "list.m3u8": playlist,
        "list.mp4": playlist,
        "concat.mp4": f"ffconcat version 1.0\nfile {good}\n".encode(),
        "concat.txt": f"ffconcat version 1.0\nfile {good}\n".encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LostattnError, match=f"video .*{name} (cannot be read|is of kind|holds no)"):
            open_video(tmp_path / name)
    for name, says in (("gone.mp4", "does not exist"), (".", "no ordinary file"), ("http://a/b.mp4", "does not exist")):
        with pytest.raises(LostattnError, match=says):
            open_video(tmp_path / name)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(LostattnError, match=r"pip install av \(the extra lostattn\[video\]\)"):
        open_video(good)


def test_rows_with_videos(tmp_path: Path) -> None:
    clips.write_clip(tmp_path / "a.mp4", clips.shades(6))
    (tmp_path / "q.jsonl").write_text('{"video": "a.mp4", "frames": 3, "question": "What?", "answer": "no"}\n')
    (example,) = read_examples(tmp_path / "q.jsonl")
    clip = example.open()
    assert isinstance(clip, Clip) and len(clip.frames) == 3
    for change, says in (
        ({"video": 5}, "must name a video file"),
        ({"video": "http://a/b.mp4"}, "must name a video file"),
        ({"frames": 0}, "from 1 to 2048"),
        ({"frames": "many"}, "from 1 to 2048"),
    ):
        with pytest.raises(LostattnError, match=f"row 4 .*{says}"):
            example_of(Row(4, {"video": "a.mp4", "question": "What?", **change}, tmp_path))
    with pytest.raises(LostattnError, match=r"row 4: video .*b\.mp4 does not exist"):
        example_of(Row(4, {"video": "b.mp4", "question": "What?"}, tmp_path)).open()


def test_video_mme_in_its_own_form(tmp_path: Path) -> None:
    from lostattn.serving.tasks.discover import get_task

    task = get_task("videomme")
    row = {
        "video_id": "001",
        "videoID": "fFjv93ACGo8",
        "duration": "short",
        "domain": "Knowledge",
        "question_id": "001-1",
        "task_type": "Counting Problem",
        "question": "How many?",
        "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."],
        "answer": "C",
    }
    (tmp_path / "videomme").mkdir()
    (tmp_path / "data").mkdir()
    clips.write_clip(tmp_path / "data" / "fFjv93ACGo8.mp4", clips.shades(6))
    import json

    (tmp_path / "videomme" / "test.jsonl").write_text(json.dumps(row) + "\n")
    (item,) = read_items(task, tmp_path / "videomme" / "test.jsonl")
    assert item.images == (VideoFile("../data/fFjv93ACGo8.mp4"),) and item.cluster == "fFjv93ACGo8"
    assert item.text.endswith("How many?\nA. One.\nB. Two.\nC. Three.\nD. Four.\nThe best answer is:")
    assert task.parse("C", item) == "C" and task.parse("The best answer is: (C) Three.", item) == item.gold == "C"
    assert isinstance(item.opened()[0], Clip)
    with pytest.raises(LostattnError, match="in this process only"):
        item.pictures()
    with pytest.raises(LostattnError, match="no list of at least two options"):
        _item(Row(1, {**row, "options": ["A. One."]}))
    with pytest.raises(LostattnError, match="that is no name"):
        _item(Row(1, {**row, "videoID": "../x"}))
