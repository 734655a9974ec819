"""The same four questions in every form that data comes in, for tests of whatever reads data."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = ("red", "lime", "blue", "white")
QUESTION = "Is there a {} in the image?"
BOXES = [[0, 0, 28, 28]]
SIZE = (84, 56)


def png(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", SIZE, colour).save(out, "PNG")
    return out.getvalue()


def rows(image: Callable[[str], Any], name: str = "image") -> list[dict[str, Any]]:
    """The questions, with their pictures in some writing."""
    return [
        {
            name: image(colour),
            "question": QUESTION.format(number),
            "answer": ("no", "yes")[number % 2],
            "category": "random",
            "boxes": BOXES,
        }
        for number, colour in enumerate(COLOURS)
    ]


def text(colour: str) -> str:
    return base64.b64encode(png(colour)).decode()


def file(folder: Path, below: str = "") -> Callable[[str], str]:
    """Writes pictures into a folder; gives the name as it stands in the folder's list."""

    def write(colour: str) -> str:
        path = folder / below / f"{colour}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(colour))
        return str(Path(below) / f"{colour}.png")

    return write


def jsonl(path: Path, found: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


def table(path: Path, found: list[dict[str, Any]], delimiter: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(found[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in found)
    return path


def dataset(found: list[dict[str, Any]], kind: str = "") -> Any:
    """A table of `datasets`; `kind` says how its pictures are stored."""
    import datasets

    image = {"": None, "image": datasets.Image(), "list": datasets.List(datasets.Image())}[kind]
    made = datasets.Dataset.from_list(found)
    return made if image is None else made.cast_column("image", image)


def struct(colour: str) -> dict[str, Any]:
    return {"bytes": png(colour), "path": None}


def to_parquet(path: Path, found: list[dict[str, Any]], kind: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset(found, kind).to_parquet(path)
    return path


def splits(folder: Path, *names: str, ending: str = "jsonl") -> Path:
    """An imagefolder of several splits; the questions in the first, one strange row in each of the others."""
    for number, name in enumerate(names):
        found = rows(file(folder / name, "pictures"), "file_name")
        if number:
            found = [{**found[0], "question": f"split {name}"}]
        path = folder / name / f"metadata.{ending}"
        jsonl(path, found) if ending == "jsonl" else table(path, found, ",")
    return folder


def saved(folder: Path, found: Any) -> Path:
    found.save_to_disk(folder)
    return folder


def two_splits(folder: Path) -> Path:
    import datasets

    whole = dataset(rows(struct), "image")
    datasets.DatasetDict({"train": whole.select([0]), "test": whole}).save_to_disk(folder)
    return folder


# name -> (folder to make it in) -> what a user gives as --data
FORMS: dict[str, Callable[[Path], str]] = {
    "JSONL": lambda d: str(jsonl(d / "q.jsonl", rows(file(d)))),
    "JSONL without an ending": lambda d: str(jsonl(d / "questions", rows(file(d)))),
    "JSONL of base64": lambda d: str(jsonl(d / "q.jsonl", rows(text))),
    "JSONL of data URLs": lambda d: str(jsonl(d / "q.jsonl", rows(lambda c: f"data:image/png;base64,{text(c)}"))),
    "JSONL of lists": lambda d: str(jsonl(d / "q.jsonl", rows(lambda c: [{"bytes": None, "path": file(d)(c)}]))),
    "JSONL with images": lambda d: str(jsonl(d / "q.jsonl", rows(lambda c: [file(d)(c)], "images"))),
    "JSON": lambda d: str(jsonl(d / "q.json", [{"data": rows(file(d))}])),
    "CSV": lambda d: str(table(d / "q.csv", rows(file(d)), ",")),
    "CSV of base64": lambda d: str(table(d / "q.csv", rows(text), ",")),
    "TSV of base64": lambda d: str(table(d / "q.tsv", rows(text), "\t")),
    "parquet": lambda d: str(to_parquet(d / "q.parquet", rows(struct), "image")),
    "parquet of lists": lambda d: str(to_parquet(d / "q.parquet", rows(lambda c: [struct(c)]), "list")),
    "parquet of plain bytes": lambda d: str(to_parquet(d / "q.parquet", rows(png))),
    "parquet of base64": lambda d: str(to_parquet(d / "q.parquet", rows(text))),
    "parquet of structs in lists": lambda d: str(to_parquet(d / "q.parquet", rows(lambda c: [struct(c)]))),
    "imagefolder": lambda d: str(jsonl(d / "metadata.jsonl", rows(file(d), "file_name")).parent),
    "imagefolder with image": lambda d: str(jsonl(d / "metadata.jsonl", rows(file(d))).parent),
    "imagefolder with image_file_name": lambda d: str(
        jsonl(d / "metadata.jsonl", rows(file(d), "image_file_name")).parent
    ),
    "imagefolder of a CSV": lambda d: str(table(d / "metadata.csv", rows(file(d), "file_name"), ",").parent),
    "imagefolder with folders": lambda d: str(jsonl(d / "metadata.jsonl", rows(file(d, "a/b"), "file_name")).parent),
    "imagefolder with its list below": lambda d: str(splits(d, "data")),
    "imagefolder of splits": lambda d: str(splits(d, "test", "train")),
    "imagefolder of splits in CSV": lambda d: str(splits(d, "test", "train", ending="csv")),
    "imagefolder of a named split": lambda d: str(splits(d, "train", "test")) + "#train",
    "folder with data.jsonl": lambda d: str(jsonl(d / "data.jsonl", rows(file(d))).parent),
    "folder with one table": lambda d: str(table(d / "pope.tsv", rows(text), "\t").parent),
    "folder of parquet": lambda d: str(
        to_parquet(d / "data" / "test-00000-of-00001.parquet", rows(struct), "image").parent.parent
    ),
    "saved": lambda d: str(saved(d / "saved", dataset(rows(struct), "image"))),
    "saved with lists": lambda d: str(saved(d / "saved", dataset(rows(lambda c: [struct(c)]), "list"))),
    "saved with splits": lambda d: str(two_splits(d / "saved")),
}


@contextmanager
def hub(monkeypatch: Any, folder: Path) -> Iterator[list[tuple[Any, ...]]]:
    """A Hub with one data set `someone/colours`, of two configurations; yields what is asked of it."""
    import datasets

    asked: list[tuple[Any, ...]] = []
    whole = dataset(rows(struct), "image")

    def load(name: str, config: str, revision: str | None = None) -> Any:
        asked.append((name, config, revision))
        if name != "someone/colours":
            raise FileNotFoundError(f"Couldn't find {name} on the Hub")
        return datasets.DatasetDict(
            {"train": whole.select([0]), "test": whole if config == "all" else whole.select([1])}
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name, revision=None: ["all", "some"])
    yield asked
