"""Boxes of the evidence: from a JSON file, from COCO annotations, from the rows of a data file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ...patches.supplied_regions import check_boxes
from ...serving.reading.pictures import file_name_of
from ...serving.shown import shown
from ...serving.tasks.row import Row
from ..data import Example, example_of, read_question_rows

Box = Sequence[float]
FORM = "[[x, y, width, height], ...] in pixels of the picture"


def read_boxes(path: str | Path) -> list[Box]:
    """A JSON file with a list of boxes, or an object with such a list under `boxes`.

    Raises:
        LostattnError: no such file, no JSON, no boxes.
    """
    result = _json(path)
    return parse_boxes(result.get("boxes") if isinstance(result, dict) else result, str(path))


def parse_boxes(found: Any, where: str) -> list[Box]:
    """Boxes from parsed JSON; LostattnError names where they stand."""
    if not isinstance(found, list) or not found:
        raise LostattnError(f"{where} holds no boxes: write {FORM}")
    try:
        check_boxes(found)
    except LostattnError as error:
        raise LostattnError(f"{where}: {error}") from error
    return found


def check_inside(boxes: Sequence[Box], size: tuple[int, int]) -> None:
    """Refuse boxes that lie outside of a picture of that (width, height): they belong to another size of it."""
    for x, y, width, height in boxes:
        if x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
            raise LostattnError(
                f"the box {[x, y, width, height]} lies outside of the picture of {size[0]} x {size[1]} pixels: give "
                "boxes in pixels of this very picture"
            )


class Coco:
    """COCO instance annotations, read once."""

    def __init__(self, path: str | Path) -> None:
        content = _json(path)
        parts = ("images", "annotations", "categories")
        if not isinstance(content, dict) or not all(isinstance(content.get(p), list) for p in parts):
            raise LostattnError(f"{path} is no COCO instances file: it needs lists {', '.join(parts)}")
        try:
            self.names = {c["name"]: c["id"] for c in content["categories"]}
            self.images = {Path(i["file_name"]).name: i for i in content["images"]}
            self.boxes: dict[tuple[int, int], list[Box]] = {}
            for a in content["annotations"]:
                self.boxes.setdefault((a["image_id"], a["category_id"]), []).append(a["bbox"])
        except (KeyError, TypeError) as error:
            raise LostattnError(f"{path} is no COCO instances file: an entry lacks {error}") from error

    def find(self, image: str, name: str, size: tuple[int, int]) -> list[Box]:
        """Boxes of one object category in the picture of that file name and (width, height).

        Raises:
            LostattnError: unknown name or picture, another size, or none of these objects in it; lists what there is.
        """
        if name not in self.names:
            raise LostattnError(f"COCO has no object '{shown(name, 40)}': it has {', '.join(sorted(self.names))}")
        entry = self.images.get(Path(image).name)
        if entry is None:
            raise LostattnError(
                f"the COCO file knows no picture named {shown(Path(image).name)}: keep COCO's file names"
            )
        stated = (entry.get("width", size[0]), entry.get("height", size[1]))
        if stated != size:
            raise LostattnError(
                f"{Path(image).name} has {size[0]} x {size[1]} pixels, but COCO's has {stated[0]} x {stated[1]}: take the "
                "original picture"
            )
        result = self.boxes.get((entry["id"], self.names[name]))
        if not result:
            there = sorted(n for n, i in self.names.items() if (entry["id"], i) in self.boxes)
            raise LostattnError(
                f"COCO marks no '{name}' in {Path(image).name}: it marks {', '.join(there) or 'nothing'}"
            )
        return parse_boxes(result, "COCO")


def read_cases(data: str | Path, limit: int | None, coco: Coco | None) -> list[tuple[Example, list[Box]]]:
    """Rows of any data with their boxes: `boxes`, or, with COCO annotations, the name of an `object`.

    Raises:
        LostattnError: a row without boxes, named.
    """
    results = []
    for row in read_question_rows(data, limit):
        if "answer" not in row.values:
            raise LostattnError(f"row {row.number} has no answer: correct and incorrect answers cannot be told apart")
        example = example_of(row)
        results.append((example, _row_boxes(row, example, coco)))
    return results


def boxes_of(row: Row) -> list[Box] | None:
    """The boxes in a row's field `boxes`; None if it has none. LostattnError names the row."""
    boxes = row.get("boxes")
    return None if boxes is None else parse_boxes(_plain_list(boxes), f"row {row.number}")


def _row_boxes(row: Row, example: Example, coco: Coco | None) -> list[Box]:
    if (result := boxes_of(row)) is not None:
        return result
    if coco is not None and isinstance(row.get("object"), str):
        return coco.find(file_name_of(row.get("image")), row.text("object"), example.open().size)
    raise LostattnError(
        f"row {example.row} has no boxes: add boxes as {FORM}, or name an object and give the annotations with --coco"
    )


def _plain_list(boxes: Any) -> Any:
    """Boxes as lists: tables hold them as JSON text."""
    if isinstance(boxes, str):
        try:
            return json.loads(boxes)
        except (ValueError, RecursionError):
            return None
    return boxes


def _json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LostattnError(f"{path} cannot be read: give a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise LostattnError(f"{path} is not JSON: write {FORM}") from error
