"""Answers on disk, item by item: what was answered before a run was cut is not asked again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ...patches.errors import LostattnError
from ..disk import disk_errors, read_json, sync_folder, write_json
from ..reading.pictures import picture_of
from ..reading.videos import VideoFile
from ..tasks.task import Item


@dataclass(frozen=True)
class Reply:
    """A model's answer to one item.

    Attributes:
        finish: `stop`, or `length` where it hit the limit of tokens.
        path: which attention computed it, as far as is known.
        prompt: names the prompt's token ids; this and the counts of tokens are of answers through vLLM.
        visual: how many of the prompt's tokens are visual ones.
    """

    text: str
    finish: str
    path: str = ""
    prompt: str = ""
    prompt_tokens: int = 0
    visual: int = 0
    output_tokens: int = 0

    def row(self) -> dict[str, Any]:
        """For a line of JSON: what is known."""
        more = {k: getattr(self, k) for k in ("prompt", "prompt_tokens", "visual", "output_tokens") if self.prompt}
        return {"response": self.text, "finish": self.finish, "path": self.path, **more}


class Replies:
    """Answers to items, in memory."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items, self.found = items, dict[int, Reply]()

    @property
    def done(self) -> bool:
        """Whether every item has its answer."""
        return len(self.found) == len(self._items)

    @property
    def replies(self) -> list[Reply]:
        """All answers in the items' order; only when `done`."""
        return [self.found[i] for i in range(len(self._items))]

    def add(self, replies: Mapping[int, Reply]) -> None:
        """Note answers by their items' places; those already there stay."""
        self.found = {**replies, **self.found}


class Answers(Replies):
    """The answers of one model to one task, in `BASE.part.jsonl` until all are there, then in `BASE.jsonl`.

    `BASE.json` holds what the answers depend on; answers of other settings are never mixed in, nor overwritten.
    """

    def __init__(
        self,
        base: Path,
        settings: Mapping[str, Any],
        items: Sequence[Item],
        check: Callable[[int, Reply], None] | None = None,
    ) -> None:
        """Read what is there.

        Args:
            check: called with every item's place and reply before it is kept or used; raises where it must not be.

        Raises:
            LostattnError: the folder holds answers of other settings, naming them, or the disk refuses.
        """
        self.part, self.final = base.with_name(f"{base.name}.part.jsonl"), base.with_name(f"{base.name}.jsonl")
        super().__init__(items)
        self._check = check or (lambda index, reply: None)
        with disk_errors(f"cannot keep answers in {base.parent}"):
            base.parent.mkdir(parents=True, exist_ok=True)
            self._check_settings(base.with_name(f"{base.name}.json"), dict(settings))
            self._read(self.final if self.final.exists() else self.part)
        for index, reply in self.found.items():
            self._check(index, reply)

    def _check_settings(self, path: Path, wanted: dict[str, Any]) -> None:
        if not path.exists() or not (self.part.exists() or self.final.exists()):
            write_json(path, wanted)
            return
        kept = read_json(path, str(path))
        wanted = json.loads(json.dumps(wanted))
        differing = sorted(k for k in wanted.keys() | kept.keys() if wanted.get(k) != kept.get(k))
        if differing:
            shown = "; ".join(f"{k} was {_short(kept.get(k))}, is {_short(wanted.get(k))}" for k in differing[:3])
            raise LostattnError(f"{path.parent} holds answers of another run ({shown}): choose another --out")

    def _read(self, path: Path) -> None:
        """Rows up to the one that was being written when the run was cut; that one is cut off."""
        if not path.exists():
            return
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True):
            row = _row(line)
            if row is None or not 0 <= row["index"] < len(self._items) or self._items[row["index"]].id != row["id"]:
                break
            self.found[row["index"]] = _reply(row)
            whole += len(line)
        if path == self.part and whole < path.stat().st_size:
            os.truncate(path, whole)

    def add(self, replies: Mapping[int, Reply]) -> None:
        """Note answers by their items' places, on the disk before this returns; those already there stay."""
        new = {i: reply for i, reply in sorted(replies.items()) if i not in self.found}
        for index, reply in new.items():
            self._check(index, reply)
        lines = "".join(self._line(i, reply) for i, reply in new.items())
        with disk_errors(f"cannot keep answers in {self.part}"), self.part.open("ab") as file:
            file.write(lines.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())
        self.found |= new

    def _line(self, index: int, reply: Reply, **more: Any) -> str:
        row = {"index": index, "id": self._items[index].id, **reply.row(), **more}
        return json.dumps(row, ensure_ascii=False) + "\n"

    def finish(self, decided: Sequence[Mapping[str, Any]]) -> None:
        """Write every answer with what was decided about it, in the items' order; the unfinished file goes."""
        lines = "".join(
            self._line(i, reply, **row) for i, (reply, row) in enumerate(zip(self.replies, decided, strict=True))
        )
        temporary = self.final.with_name(f".{self.final.name}.lostattn-new")
        with disk_errors(f"cannot write {self.final}"):
            with temporary.open("wb") as file:
                file.write(lines.encode("utf-8", "replace"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.final)
            self.part.unlink(missing_ok=True)
            sync_folder(self.final.parent)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    known = {"index": int, "id": str, "response": str, "finish": str, "path": str}
    return row if isinstance(row, dict) and all(isinstance(row.get(k), t) for k, t in known.items()) else None


def _reply(row: Mapping[str, Any]) -> Reply:
    numbers = [n if isinstance(n := row.get(k), int) else 0 for k in ("prompt_tokens", "visual", "output_tokens")]
    return Reply(row["response"], row["finish"], row["path"], str(row.get("prompt", "")), *numbers)


def read_answers(path: Path) -> list[str]:
    """The responses in a finished file of answers, in the items' order."""
    with disk_errors(f"cannot read {path}"):
        return [str(json.loads(line)["response"]) for line in path.read_text(encoding="utf-8").splitlines()]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"


def items_fingerprint(items: Iterable[Item]) -> str:
    """Names what is asked: ids, prompts and pictures; the same in every process."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr((item.id, item.prompt)).encode())
        for image in item.images:
            digest.update(_picture(image, item.folder))
    return digest.hexdigest()[:32]


def _picture(image: Any, folder: Path) -> bytes:
    """A picture's content; of a file its name and size, since there may be many large ones; of a video also its part."""
    if isinstance(image, VideoFile):
        return image.name(folder).encode()
    image = picture_of(image, folder)
    if isinstance(image, Image.Image):
        return f"{image.mode} {image.size}".encode() + hashlib.sha256(image.tobytes()).digest()
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    path = folder / str(image)
    return f"{image} {path.stat().st_size if path.is_file() else 0}".encode()


@contextmanager
def alone_in(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold a lock file while the block runs; False if another process holds it, unless `wait`. It ends with its process."""
    with disk_errors(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            yield False
            return
        yield True
