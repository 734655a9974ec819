"""A picture in every writing that rows bring: what is one, what is none, and how short the sentence about it is."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.serving.data import Example
from lostattn.serving.reading.pictures import open_picture, picture_of, picture_size
from lostattn.serving.shown import LONGEST, shown
from PIL import Image

PIXELS = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4
KINDS = ("PNG", "WEBP", "TIFF", "BMP", "GIF")


def encoded(kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return out.getvalue()


PNG = encoded()
TEXT = base64.b64encode(PNG).decode()
WRITINGS: dict[str, Any] = {
    "file name": "a.png",
    "path object": Path("a.png"),
    "file in a folder": "sub/b.png",
    "with dots": "sub/../a.png",
    "bytes": PNG,
    "bytearray": bytearray(PNG),
    "memoryview": memoryview(PNG),
    "numbers": list(PNG),
    "base64": TEXT,
    "base64 with line breaks": "\n".join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76)) + "\n",
    "base64 without padding": TEXT.rstrip("="),
    "base64 for URLs": base64.urlsafe_b64encode(PNG).decode(),
    "data URL": f"data:image/png;base64,{TEXT}",
    "data URL in capitals": f"DATA:IMAGE/PNG;BASE64,{TEXT}",
    "data URL with parameters": f"data:image/png;name=a.png;base64,{TEXT}",
    "data URL without a type": f"data:;base64,{TEXT}",
    "quoted data URL": "data:image/png," + "".join(f"%{b:02x}" for b in PNG),
    "datasets": {"bytes": PNG, "path": None},
    "datasets by path": {"bytes": None, "path": "a.png"},
    "datasets with both": {"bytes": PNG, "path": "gone.png"},
    "empty bytes beside a path": {"bytes": b"", "path": "a.png"},
    "base64 in bytes' field": {"bytes": TEXT},
    "url of data": {"url": f"data:image/png;base64,{TEXT}"},
    "chat": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{TEXT}"}},
    "chat of Qwen": {"type": "image", "image": "a.png"},
    "chat of Anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": TEXT}},
    "list": [{"bytes": PNG, "path": None}],
    "list of a name": ["a.png"],
    "tuple": ("a.png",),
    "nested": [[[PNG]]],
    "list with nothing beside it": [None, {"bytes": None, "path": None}, {"bytes": PNG}],
    "list of base64": [TEXT],
    "array": PIXELS,
    "nested numbers": PIXELS.tolist(),
    "batch of one": PIXELS[None],
    "wide numbers": PIXELS.astype(np.int64),
    "array of objects": np.array([{"bytes": PNG}], dtype=object),
    "array of bytes": np.frombuffer(PNG, np.uint8),
    "opened": Image.fromarray(PIXELS),
    "list of opened": [Image.fromarray(PIXELS)],
}
WRITINGS |= {f"base64 of {kind}": base64.b64encode(encoded(kind)).decode() for kind in KINDS[:-1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    (path / "sub").mkdir()
    (path / "a.png").write_bytes(PNG)
    (path / "sub" / "b.png").write_bytes(PNG)
    return path


@pytest.mark.parametrize("name", WRITINGS)
def test_every_writing_is_the_same_picture(folder: Path, name: str) -> None:
    found = Example(3, WRITINGS[name], "Q", folder=folder).open()
    assert found.mode == "RGB" and np.array_equal(np.asarray(found), PIXELS)
    assert picture_size(WRITINGS[name], folder) == (5, 4)
    once = picture_of(WRITINGS[name], folder)
    assert np.array_equal(np.asarray(open_picture(once, folder)), PIXELS)


def test_grey_and_clear_pictures_in_memory_are_opened_as_files_are() -> None:
    """An array of 16 bits, a transparent one, a turned one: not Pillow's own conversions."""
    deep = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000
    assert np.array_equal(np.asarray(open_picture(deep))[..., 0], np.round(deep * (255 / 65535)).astype(np.uint8))
    clear = np.dstack([PIXELS, np.zeros((4, 5), np.uint8)])
    assert (np.asarray(open_picture(clear)) == 255).all()
    grey = open_picture(PIXELS[..., :1])
    assert np.array_equal(np.asarray(grey)[..., 2], PIXELS[..., 0])
    assert np.asarray(open_picture(PIXELS[..., 0] > 30)).max() == 255


NONE: dict[str, tuple[Any, str]] = {
    "no bytes and no path": ({"bytes": None, "path": None}, "no picture in"),
    "empty list": ([], "no picture in"),
    "NaN": (float("nan"), "no picture in"),
    "nothing": (None, "no picture in"),
    "blank": (" ", "no picture in"),
    "two": (["a.png", "a.png"], "list of 2 pictures: give one picture in each row"),
    "nested two": ([[PNG, PNG]], "list of 2"),
    "URL": ("https://example.com/cat.png", "is the URL https://example.com/cat.png, and nothing is fetched"),
    "URL in a dict": ({"url": "http://127.0.0.1/x"}, "nothing is fetched"),
    "file URL": ("file:///etc/passwd", "is the URL"),
    "s3": ({"bytes": None, "path": "s3://bucket/key"}, "is the URL"),
    "damaged base64": (TEXT[:-6] + "****", "neither a file nor|does not exist"),
    "cut base64": (TEXT[: len(TEXT) // 2], "no picture that Pillow"),
    "bad length": (TEXT.rstrip("=")[: 4 * 20 + 1], "damaged base64 text"),
    "data URL of text": ("data:text/plain;base64,aGVsbG8gd29ybGQ=", "no picture that Pillow"),
    "data URL without a comma": ("data:image/png;base64" + TEXT, "without a comma"),
    "missing": ("gone.png", "image .*gone.png does not exist"),
    "folder": ("sub", "is a folder"),
    "number": (5, "the image is 5: give"),
    "truth": (True, "the image is True"),
    "empty dict": ({}, "the image is"),
    "other dict": ({"colour": "red"}, "the image is"),
    "path as a number": ({"path": 3}, "the image is"),
    "real numbers": (PIXELS / 255.0, "array of float64 of shape"),
    "negative": (PIXELS.astype(int) - 9, "array of int64"),
    "channels first": (PIXELS.transpose(2, 0, 1), "give uint8 of"),
    "ragged": ([[1, 2], [3]], "the image is"),
    "few numbers": ([1, 2, 3], "the image is"),
    "deep": ([[[[[[[[[[PNG]]]]]]]]]], "nested more than"),
    "zero byte": ("a\0.png", "neither a file nor"),
    "object": (object(), "the image is"),
}


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_picture_is_one_short_sentence(folder: Path, name: str) -> None:
    value, says = NONE[name]
    with pytest.raises(LostattnError, match=f"row 7: .*({says})") as error:
        Example(7, value, "Q", folder=folder).open()
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LostattnError, match="no ordinary file"):
        open_picture("pipe", tmp_path)


def longest_quote(text: str, value: str) -> int:
    """Length of the longest piece of a value that a text holds."""
    best = 0
    for start in range(len(value)):
        while start + best < len(value) and value[start : start + best + 1] in text:
            best += 1
    return best


LONG = st.text(min_size=200, max_size=3000).filter(lambda t: len(set(t)) > 30)


@settings(max_examples=60, deadline=None)
@given(LONG, st.sampled_from(["plain", "list", "path", "url", "data", "dict", "base64"]))
def test_no_message_quotes_a_long_value(text: str, how: str) -> None:
    value: Any = {
        "plain": text,
        "list": [text, text],
        "path": {"bytes": None, "path": text},
        "url": f"https://x/{text}",
        "data": f"data:image/png;base64,{text}",
        "dict": {text: text},
        "base64": base64.b64encode(text.encode()).decode(),
    }[how]
    with pytest.raises(LostattnError) as error:
        Example(1, value, "Q", folder=Path("/nonexistent")).open()
    said = str(error.value)
    assert (
        longest_quote(said, value if isinstance(value, str) else text) <= LONGEST
        and len(said) < 500
        and "\n" not in said
    )


@given(st.one_of(st.text(max_size=2000), st.binary(max_size=500), st.lists(st.text(max_size=500), max_size=50)))
def test_shown_is_one_short_line(value: Any) -> None:
    assert len(shown(value)) <= LONGEST and shown(value).isprintable()
    if isinstance(value, str) and len(value) <= LONGEST and value.isprintable():
        assert shown(value) == value


def test_json_holds_what_python_holds(folder: Path) -> None:
    row = json.loads(json.dumps({"image": [{"bytes": None, "path": "a.png"}]}))
    assert open_picture(row["image"], folder).size == (5, 4)
