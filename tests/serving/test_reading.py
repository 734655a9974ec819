"""One reader: every form of data, read by both doors into it; what a name means; what is said where it means nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import data_forms
import pytest
from data_forms import COLOURS, FORMS, QUESTION, SIZE, file, jsonl, rows, splits, struct
from hypothesis import given, settings
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.serving.data import Example, read_examples
from lostattn.serving.reading.place import find_place
from lostattn.serving.tasks.discover import get_task
from lostattn.serving.tasks.rows import read_items
from lostattn.serving.tasks.task import Item
from lostattn.surgery.data import read_question_rows
from lostattn.surgery.tracing.boxes import read_cases
from PIL import ImageColor

POPE, DIGITS = get_task("pope"), get_task("digits")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `datasets` keeps goes where the test's files go."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def whole(found: list[Example] | list[Item]) -> None:
    """These are the questions, each with its picture."""
    for number, (one, colour) in enumerate(zip(found, COLOURS, strict=True)):
        picture = one.open() if isinstance(one, Example) else one.pictures()[0]
        assert picture.size == SIZE and picture.getpixel((1, 1)) == ImageColor.getrgb(colour)
        said = (one.question, one.answer) if isinstance(one, Example) else (one.prompt[1].partition("\n")[0], one.gold)
        assert said == (QUESTION.format(number), ("no", "yes")[number % 2])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_data(form: str, tmp_path: Path) -> None:
    data = FORMS[form](tmp_path / "d")
    if form != "imagefolder of a named split":
        whole(read_items(POPE, data))
    examples = read_examples(data)
    whole(examples)
    whole(read_items(DIGITS, data))
    whole(read_items(DIGITS, data, limit=4))
    assert [list(boxes) for _, boxes in read_cases(data, None, None)] == [data_forms.BOXES] * 4
    assert [e.row for e in examples] == [1, 2, 3, 4] and [e.row for e in read_examples(data, 2)] == [1, 2]


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with data_forms.hub(monkeypatch, tmp_path) as asked:
        for data in ("someone/colours:all", "hf://datasets/someone/colours:all@v1.0#test", "someone/colours:all@main"):
            whole(read_examples(data))
            whole(read_items(POPE, data))
        assert {a[2] for a in asked} == {None, "v1.0", "main"} and {a[1] for a in asked} == {"all"}
        assert len(read_examples("someone/colours")) == 5 and len(read_examples("someone/colours#train")) == 2
        for data, says in (
            ("someone/colours:none", "no configuration none: choose one of all, some"),
            ("someone/colours#dev", "no split dev: choose one of train, test"),
            ("someone/else", "cannot be had from the Hub"),
        ):
            with pytest.raises(LostattnError, match=says):
                read_examples(data)
        before = len(asked)
        for data in (
            "questions/pope.jsonl",
            "./someone/colours",
            "../x/y",
            "/abs/x",
            "https://huggingface.co/datasets/a/b",
            "someone",
            "some one/x",
            "someone/colours/more",
            ".hidden/x",
            "data.csv",
            "a/b.parquet",
        ):
            with pytest.raises(LostattnError, match="does not exist|nothing is fetched|none is fetched"):
                read_examples(data)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "someone").mkdir()
        with pytest.raises(
            LostattnError, match="does not exist here .the Hub's data set of that name is hf://datasets/someone"
        ):
            read_examples("someone/colours")
        assert len(asked) == before, "a path that is not there is not looked for on the Hub"


def test_the_demos_questions_are_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    three = read_examples("digits:3")
    for same in (read_examples("digits", 3), read_examples("digits:9", 3), read_examples("digits:3@0", seed=5)):
        assert [(e.question, e.image.tobytes()) for e in same] == [(e.question, e.image.tobytes()) for e in three]
    items = read_items(DIGITS, "digits:3")
    assert [i.images[0].tobytes() for i in items] == [e.image.tobytes() for e in three]
    assert len(read_items(DIGITS, "digits")) == 500
    other = read_examples("builtin", 3)
    assert [e.question for e in other] == [e.question for e in read_examples("digits:3@1000")]
    assert [e.image.tobytes() for e in other] != [e.image.tobytes() for e in three]
    for name in ("digits:0", "digits:x", "digits:-1", "digits:3@", "digits:9999999", "digits:3#test"):
        with pytest.raises(LostattnError, match="names no number of the demo's questions: write digits:200"):
            read_examples(name)
    with pytest.raises(LostattnError, match="have no splits"):
        read_items(DIGITS, "digits:3", split="test")
    (tmp_path / "digits").mkdir()
    with pytest.raises(LostattnError, match="write ./digits for the file"):
        read_examples("digits")


def test_evidence_of_the_demo_is_where_the_digit_is() -> None:
    for row in read_question_rows("digits:40"):
        picture, boxes = row.values["image"].convert("L"), row.values["boxes"]
        for x, y, wide, high in boxes:
            assert picture.crop((x, y, x + wide, y + high)).getextrema()[0] < 100, "a cell with ink"
        assert boxes and (row.values["answer"] != "yes" or len(boxes) <= 12)


def test_splits(tmp_path: Path) -> None:
    """A named one, in any usual spelling, else the task's own, else the first of validation, test, train."""
    path = splits(tmp_path / "d", "test", "training", "val")
    assert [e.question for e in read_examples(str(path))] == ["split val"]
    assert [e.question for e in read_examples(f"{path}#train")] == ["split training"]
    whole(read_examples(f"{path}#test"))
    whole(read_items(POPE, str(path)))
    assert read_items(DIGITS, f"{path}#dev")[0].prompt[1] == "split val"
    assert len(read_items(POPE, str(path), split="validation")) == 1
    with pytest.raises(LostattnError, match="no split other: choose one of test, training, val"):
        read_examples(f"{path}#other")
    with pytest.raises(LostattnError, match="names split test, --split train"):
        read_items(POPE, f"{path}#test", split="train")
    one = jsonl(tmp_path / "one.jsonl", rows(file(tmp_path)))
    with pytest.raises(LostattnError, match="one file without splits"):
        read_examples(f"{one}#test")
    odd = jsonl(tmp_path / "a#b.jsonl", rows(file(tmp_path)))
    whole(read_examples(str(odd)))


def test_one_list_for_all_splits(tmp_path: Path) -> None:
    """The folder's own list names pictures of several splits."""
    found = rows(file(tmp_path, "test"), "file_name") + [{**rows(file(tmp_path, "train"), "file_name")[0]}]
    jsonl(tmp_path / "metadata.jsonl", found)
    assert len(read_examples(str(tmp_path))) == 5
    whole(read_examples(f"{tmp_path}#test"))
    with pytest.raises(LostattnError, match="no split validation"):
        read_examples(f"{tmp_path}#validation")


BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "no JSON": ("q.jsonl", b'{"a": 1}\n{', "row 2 of q.jsonl is not JSON"),
    "empty": ("q.jsonl", b"\n\n", "has no rows"),
    "no UTF-8": ("q.csv", b"image,question\n\xff,x\n", "row 1 of q.csv cannot be read"),
    "too many cells": ("q.tsv", b"image\tquestion\na\tb\tc\n", "row 1 of q.tsv has 3 cells"),
    "open quotes": ("q.csv", b'image,question\na,"b\n', "cannot be read"),
    "twice": ("q.csv", b"a,a\n1,2\n", "names a column twice"),
    "no head": ("q.csv", b"", "has no rows"),
    "no parquet": ("q.parquet", b"PAR1", "cannot be read as a dataset"),
    "JSON number": ("q.json", b"5", "holds no list of objects"),
    "no fields": ("q.json", b"[1, 2]", "row 1 of q.json is no object"),
    "picture for data": ("a.png", data_forms.png("red"), "is not JSON"),
    "two pictures": (
        "q.jsonl",
        json.dumps({"image": ["a", "b"], "question": "Q", "answer": "yes"}).encode(),
        "row 1: .*list of 2",
    ),
    "no picture in it": (
        "q.jsonl",
        b'{"image": {"bytes": null, "path": null}, "question": "Q", "answer": "yes"}',
        "row 1",
    ),
    "URL": (
        "q.jsonl",
        b'{"image": {"url": "http://x/y.png"}, "question": "Q", "answer": "yes"}',
        "row 1: .*nothing is fetched",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_cannot_be_read_is_one_sentence(name: str, tmp_path: Path) -> None:
    file_name, content, says = BAD_FILES[name]
    (tmp_path / file_name).write_bytes(content)
    with pytest.raises(LostattnError, match=says) as error:
        read_examples(str(tmp_path / file_name))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    with pytest.raises(LostattnError):
        read_items(DIGITS, str(tmp_path / file_name))


def test_a_folder_of_several_tables_and_a_clone_that_points_elsewhere(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        jsonl(tmp_path / "two" / name, rows(file(tmp_path / "two")))
    with pytest.raises(LostattnError, match=r"several tables .a.jsonl, b.jsonl.: name one of them"):
        read_examples(str(tmp_path / "two"))
    clone = tmp_path / "clone"
    data_forms.to_parquet(clone / "test.parquet", rows(struct), "image")
    (clone / "README.md").write_text(
        "---\nconfigs:\n- config_name: a\n  data_files: https://example.com/x.parquet\n---\n"
    )
    with pytest.raises(LostattnError, match="names files on other machines, and none is fetched"):
        read_examples(str(clone))


def test_a_picture_outside_is_read_as_before_and_a_missing_one_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    file(tmp_path / "other")("red")
    (tmp_path / "link.png").symlink_to(tmp_path / "other" / "red.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name in ("other/red.png", "link.png", str(tmp_path / "other" / "red.png"), "other/../link.png"):
        path = jsonl(tmp_path / "q.jsonl", [{"image": name, "question": "Q"}])
        assert read_examples(str(path))[0].open().size == SIZE
    for name in ("gone.png", "loop.png", "../gone/red.png"):
        path = jsonl(tmp_path / "q.jsonl", [{"image": name, "question": "Q"}])
        with pytest.raises(LostattnError, match="row 1: image "):
            read_examples(str(path))[0].open()


def lengthened(value: Any, long: str) -> Any:
    """The same value with a long text wherever a text stands."""
    if isinstance(value, dict):
        return {k: lengthened(v, long) for k, v in value.items()}
    if isinstance(value, list):
        return [lengthened(v, long) for v in value]
    return long if isinstance(value, str) else value


FIELDS = st.dictionaries(
    st.sampled_from(["image", "question", "answer", "options", "category", "file_name", "A", "B", "boxes"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=400),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["bytes", "path", "url", "x"]), inner, max_size=2)
        ),
        max_leaves=6,
    ),
)


@settings(max_examples=200, deadline=None)
@given(
    found=FIELDS, long=st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=1000), min_size=300, max_size=600)
)
def test_any_row_is_read_or_refused_in_a_sentence(found: dict[str, Any], long: str, tmp_path_factory: Any) -> None:
    """JSON of any shape, with a long text wherever a text stands: no other error, and no long quote."""
    path = tmp_path_factory.mktemp("rows") / "q.jsonl"
    path.write_text(json.dumps(lengthened(found, long)) + "\n")
    for read in (
        lambda: read_examples(str(path))[0].open(),
        lambda: read_items(POPE, str(path))[0].pictures(),
        lambda: read_items(DIGITS, str(path))[0].pictures(),
        lambda: read_cases(str(path), None, None),
    ):
        try:
            read()
        except LostattnError as error:
            said = str(error)
            assert "\n" not in said and not any(long[i : i + 81] in said for i in range(0, len(long) - 81))


@given(st.text(max_size=6000))
@settings(max_examples=80, deadline=None)
def test_any_name_of_data_is_found_or_refused_in_a_sentence(text: str) -> None:
    try:
        find_place(text)
    except LostattnError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
