"""Question-answer data: JSONL, folders, dataset folders; right and wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving.data import Example, read_examples
from PIL import Image

ROW = {"image": "a.png", "question": "What?"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (3, 2), "red").save(tmp_path / "a.png")
    return tmp_path


def write(folder: Path, *rows: Any, name: str = "data.jsonl") -> Path:
    """Rows as JSONL; text is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder / name


def test_rows_with_everything(folder: Path) -> None:
    full = {**ROW, "answer": "B", "options": ["x", 2], "extra": 1}
    found = read_examples(write(folder, ROW, "", "  ", full, {"file_name": "a.png", "question": "Q", "answer": 3}))
    assert [(e.row, e.question, e.answer, e.options) for e in found] == [
        (1, "What?", "", ()),
        (4, "What?", "B", ("x", "2")),
        (5, "Q", "3", ()),
    ]
    assert found[0].open().getpixel((0, 0)) == (255, 0, 0)
    assert read_examples(write(folder, {**ROW, "answer": None}))[0].answer == ""


@pytest.mark.parametrize("name", ["metadata.jsonl", "data.jsonl"])
def test_a_folder_with_a_list(folder: Path, name: str) -> None:
    write(folder, ROW, name=name)
    assert read_examples(str(folder))[0].open().size == (3, 2)


def test_the_limit_reads_no_further(folder: Path) -> None:
    path = write(folder, ROW, ROW, "broken")
    assert len(read_examples(path, 2)) == 2
    with pytest.raises(LostattnError, match="row 3 of data.jsonl is not JSON"):
        read_examples(path, 3)


def test_other_writings(folder: Path) -> None:
    (folder / "b.jsonl").write_bytes(
        b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n" + json.dumps(ROW).encode() + b"\r\n"
    )
    assert len(read_examples(folder / "b.jsonl")) == 2
    (folder / "sub").mkdir()
    absolute = {**ROW, "image": str(folder / "a.png")}
    assert read_examples(write(folder / "sub", absolute))[0].open().size == (3, 2)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("[1]", "row 2 of data.jsonl is no object"),
        ("5", "is no object: each row needs"),
        ("null", "is no object"),
        ({"question": "x"}, "row 2 has no image or no question: each row needs image"),
        ({"image": "a.png"}, "no question"),
        ({**ROW, "question": 3}, "no question"),
        ({**ROW, "question": " "}, "no question"),
        ({**ROW, "image": 5}, "the image is 5"),
        ({**ROW, "image": [1]}, "the image is"),
        ({**ROW, "image": {}}, "the image is"),
        ({**ROW, "image": ""}, "the image is"),
        ({**ROW, "image": {"path": 3}}, "the image is"),
        ({**ROW, "options": "abc"}, "options must be a list"),
        ({**ROW, "answer": ["x"]}, "answer must be one text"),
        ("{", "row 2 of data.jsonl is not JSON"),
        ("[" * 100_000, "row 2 of data.jsonl is not JSON"),
    ],
    ids=str,
)
def test_rows_that_cannot_be(folder: Path, row: Any, says: str) -> None:
    with pytest.raises(LostattnError, match=says) as error:
        read_examples(write(folder, ROW, row))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_data_that_is_none(folder: Path) -> None:
    (folder / "binary.jsonl").write_bytes(b"\xff\xfe\x00\x01")
    (folder / "empty.jsonl").write_text("\n\n")
    for name, says in (
        ("none.jsonl", "does not exist: give a JSONL"),
        ("empty.jsonl", "has no rows"),
        ("binary.jsonl", "row 1 .* UTF-8"),
        ("a\0b", "does not exist"),
    ):
        with pytest.raises(LostattnError, match=says):
            read_examples(folder / name)


@pytest.mark.parametrize("image", ["none.png", {"path": "none.png"}, b"no picture", {"bytes": b"no picture"}], ids=str)
def test_broken_pictures_name_their_row(folder: Path, image: Any) -> None:
    with pytest.raises(LostattnError, match="row 7: "):
        Example(7, image, "Q", folder=folder).open()


def test_pictures_in_every_form(folder: Path) -> None:
    data = (folder / "a.png").read_bytes()
    for image in (
        "a.png",
        str(folder / "a.png"),
        data,
        {"bytes": data, "path": None},
        {"path": "a.png"},
        Image.open(folder / "a.png"),
    ):
        assert Example(1, image, "Q", folder=folder).open().getpixel((2, 1)) == (255, 0, 0)


def test_a_folder_without_a_list_needs_datasets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(LostattnError, match="pip install datasets"):
        read_examples(folder)


def test_dataset_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    arrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    (folder / "set").mkdir()
    picture = {"bytes": (folder / "a.png").read_bytes(), "path": None}
    parquet.write_table(
        arrow.table({"image": [picture, picture], "question": ["Q1", "Q2"]}), folder / "set" / "train.parquet"
    )
    found = read_examples(folder / "set")
    assert [e.question for e in found] == ["Q1", "Q2"] and found[1].open().getpixel((0, 0)) == (255, 0, 0)
    (folder / "none").mkdir()
    with pytest.raises(LostattnError, match="cannot be read as a dataset"):
        read_examples(folder / "none")


def test_dataset_rows_without_datasets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice of the split and the undecoded column, on a stand-in for the library."""

    class Column:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    class Table(list):  # type: ignore[type-arg]
        features = {"image": Column()}

        def cast_column(self, name: str, column: Column) -> Table:
            assert name == "image" and not column.decode
            buffer = io.BytesIO()
            Image.new("RGB", (1, 1), "lime").save(buffer, "PNG")
            return Table({**row, "image": {"bytes": buffer.getvalue(), "path": None}} for row in self)

    library = type(sys)("datasets")
    library.Image = Column  # type: ignore[attr-defined]
    library.get_dataset_config_names = lambda path: ["default"]  # type: ignore[attr-defined]
    library.load_dataset = lambda path, name: {"train": Table(), "validation": Table([ROW])}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
    (found,) = read_examples(folder)
    assert found.open().getpixel((0, 0)) == (0, 255, 0)
