"""Reading a task's data: JSONL, parquet, dataset folders, the Hub; what is said when that fails."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from lostattn.patches.errors import LostattnError
from lostattn.serving.tasks.discover import get_task
from lostattn.serving.tasks.rows import read_items
from PIL import Image

POPE = get_task("pope")
ROW = {"question": "Is there a dog in the image?", "answer": "yes", "category": "random", "image": "a.png"}


def png(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(png())
    return tmp_path


def write(folder: Path, *rows: Any, name: str = "q.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path


def test_jsonl(folder: Path) -> None:
    path = write(folder, {**ROW, "question_id": 1}, "", {**ROW, "question_id": 1}, {**ROW, "answer": "No"})
    found = read_items(POPE, path)
    assert [(i.id, i.row, i.gold) for i in found] == [
        ("random/1", 1, "yes"),
        ("random/1#2", 3, "yes"),
        ("random/4", 4, "no"),
    ]
    assert found[0].pictures()[0].getpixel((0, 0)) == (255, 0, 0) and len(read_items(POPE, path, limit=2)) == 2
    assert read_items(POPE, path, reasoning=True)[0].text.endswith("tags.")


@pytest.mark.parametrize("name", ["metadata.jsonl", "data.jsonl"])
def test_a_folder_with_a_list(folder: Path, name: str) -> None:
    write(folder, ROW, name=name)
    assert read_items(POPE, folder)[0].pictures()[0].size == (3, 2)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["{"], "row 1 of q.jsonl is not JSON"),
        ([ROW, "[1]"], "row 2 of q.jsonl is no object"),
        ([{**ROW, "image": None}], "row 1 lacks a picture: each row of task pope"),
        ([ROW, {**ROW, "answer": None}], "row 2 has no field 'answer': each row of task pope needs question, answer"),
        ([""], "has no rows"),
    ],
    ids=str,
)
def test_rows_that_cannot_be(folder: Path, rows: list[Any], says: str) -> None:
    with pytest.raises(LostattnError, match=says):
        read_items(POPE, write(folder, *rows))


def test_data_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LostattnError, match="nothing.jsonl does not exist: give --data"):
        read_items(POPE, folder / "nothing.jsonl")
    with pytest.raises(LostattnError, match="task digits: give --data"):
        read_items(get_task("digits"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    for data in (None, "me/mine", folder):
        with pytest.raises(LostattnError, match="pip install datasets"):
            read_items(POPE, data)


class Column:
    """A picture column of the stand-in library below."""

    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class Table(list):  # type: ignore[type-arg]
    """A table of it; undecoded pictures are bytes."""

    features = {"image": Column(), "question": None}

    def cast_column(self, name: str, column: Column) -> Table:
        assert name == "image" and not column.decode
        return Table({**row, "image": {"bytes": png("lime"), "path": None}} for row in self)


def test_configurations_and_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """All configurations behind each other, the task's split of each; on a stand-in for the library."""
    asked = []

    def load(path: str, name: str) -> dict[str, Table]:
        asked.append((path, name))
        return {"train": Table(), "test": Table([{**ROW, "category": name}]), "mine": Table([ROW] * 3)}

    library = type(sys)("datasets")
    library.Image = Column  # type: ignore[attr-defined]
    library.load_dataset = load  # type: ignore[attr-defined]
    library.get_dataset_config_names = lambda path: ["popular", "random"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
    found = read_items(POPE)
    assert [i.groups["setting"] for i in found] == ["popular", "random"] and asked[0] == (
        "lmms-lab-encoder/POPE",
        "popular",
    )
    assert found[0].pictures()[0].getpixel((0, 0)) == (0, 255, 0)
    assert len(read_items(POPE, "me/mine", split="mine")) == 6
    with pytest.raises(LostattnError, match="no split dev: choose one of train, test, mine"):
        read_items(POPE, "me/mine", split="dev")


def test_parquet_and_dataset_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "cache"))
    row = {**ROW, "image": {"bytes": png("blue"), "path": None}}
    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "answer": datasets.Value("string"),
            "category": datasets.Value("string"),
            "image": datasets.Image(),
        }
    )
    table = datasets.Dataset.from_list([row, {**row, "answer": "no"}], features=features)
    (folder / "repo" / "data").mkdir(parents=True)
    table.to_parquet(folder / "repo" / "data" / "test-00000-of-00001.parquet")
    table.save_to_disk(folder / "saved")
    datasets.DatasetDict({"train": table.select([0]), "test": table}).save_to_disk(folder / "splits")
    one = folder / "repo" / "data" / "test-00000-of-00001.parquet"
    for data in (one, folder / "repo", folder / "saved", folder / "splits"):
        found = read_items(POPE, data)
        assert [i.gold for i in found] == ["yes", "no"] and found[0].cluster == found[1].cluster, data
        assert found[1].pictures()[0].getpixel((2, 1)) == (0, 0, 255)
    assert len(read_items(POPE, folder / "splits", split="train")) == 1
    (folder / "broken.parquet").write_bytes(b"PAR1")
    (folder / "none").mkdir()
    for data in (folder / "broken.parquet", folder / "none"):
        with pytest.raises(LostattnError, match="cannot be read as a dataset"):
            read_items(POPE, data)
    with pytest.raises(LostattnError, match="cannot be had from the Hub"):
        read_items(POPE, "nobody/nothing")
