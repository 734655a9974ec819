"""Where data is: the one grammar of `--data`.

    FILE                              JSONL, JSON, CSV, TSV or parquet, by its ending; anything else is read as JSONL
    FOLDER                            an imagefolder, one saved by `datasets`, or a clone of a data set of the Hub
    OWNER/NAME[:CONFIG][@REVISION]    a data set of the Hub, also written hf://datasets/OWNER/NAME...
    digits[:N][@SEED]                 the demo's held-out questions, the first N
    builtin                           digits@1000, the questions on which heads are ranked unless others are given

`#SPLIT` behind any of them but digits names a split. What exists here is a file or folder; a name that ends or begins like a
path, or whose folder exists here, never is a Hub id.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ...patches.errors import LostattnError
from ..disk import disk_errors
from ..shown import shown
from .forms import FORMS

HINT = f"give {FORMS}"
BUILTIN, DIGITS = "builtin", "digits"
RANKING_SEED = 1000  # of the questions on which heads are ranked unless others are given
MOST_DIGITS = 1_000_000
_DIGITS = re.compile(r"digits(?::(?P<count>[0-9]{1,7}))?(?:@(?P<seed>[0-9]{1,9}))?")
_HUB = re.compile(
    r"(?:hf://datasets/)?(?P<repo>\w[\w.-]*/\w[\w.-]*)(?::(?P<config>[\w.,+-]+))?(?:@(?P<revision>[\w./-]+))?", re.ASCII
)
_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".arrow", ".zip", ".tar", ".gz", ".xlsx")


@dataclass(frozen=True)
class Place:
    """One kind of place: a path here, a data set of the Hub, or built-in questions.

    Attributes:
        name: what reports call it.
        path: the file or folder, which exists.
        repo, config, revision: of the Hub.
        count, seed: of the built-in questions; None where the user named none.
        split: "" where the user named none.
    """

    name: str
    path: Path | None = None
    repo: str = ""
    config: str = ""
    revision: str = ""
    count: int | None = None
    seed: int | None = None
    split: str = ""

    @property
    def builtin(self) -> bool:
        """Whether these are the demo's questions."""
        return self.path is None and not self.repo


def find_place(text: str | Path, hint: str = HINT) -> Place:
    """What a user's text names.

    Args:
        hint: end of the message if there is nothing of that name.

    Raises:
        LostattnError: nothing of that name here, and no Hub id either.
    """
    if isinstance(text, Path):
        return _here(text, "") or _nowhere(str(text), hint)
    if text == BUILTIN or text.startswith(f"{DIGITS}:") or _DIGITS.fullmatch(text):
        return _digits(text)
    before, mark, split = text.rpartition("#")
    result = _here(Path(text), "")
    if result is None and mark and before:
        result = _here(Path(before), _split_name(split, text))
    return result or _on_the_hub(text, hint)


def _digits(text: str) -> Place:
    if text == BUILTIN:
        return Place("built-in pictures of handwritten digits", seed=RANKING_SEED)
    match = _DIGITS.fullmatch(text)
    count = int(match["count"]) if match and match["count"] else None
    if match is None or count == 0 or (count or 0) > MOST_DIGITS:
        raise LostattnError(f"'{shown(text)}' names no number of the demo's questions: write digits:200")
    if Path(text).exists():
        raise LostattnError(
            f"'{text}' are the demo's questions, but a file has that name too: write ./{text} for the file"
        )
    return Place(f"the demo ({text})", count=count, seed=int(match["seed"]) if match["seed"] else None)


def _here(path: Path, split: str) -> Place | None:
    with disk_errors(f"cannot read the data {shown(str(path))}"):
        if not path.exists():
            return None
        name = path.name or path.resolve().name or "data"
        return Place(f"{name}#{split}" if split else name, path=path, split=split)


def _on_the_hub(text: str, hint: str) -> Place:
    name, mark, split = text.partition("#")
    match = _HUB.fullmatch(name)
    forced = text.startswith("hf://")
    if "://" in text and not forced:
        raise LostattnError(
            f"the data {shown(text)} is a URL, and none is fetched: download it, or give a Hub id OWNER/NAME"
        )
    if match is None or not forced and (name.lower().endswith(_ENDINGS) or Path(name).parent.exists()):
        _nowhere(text, hint)
    return Place(
        text.removeprefix("hf://datasets/"),
        repo=match["repo"],
        config=match["config"] or "",
        revision=match["revision"] or "",
        split=_split_name(split, text) if mark else "",
    )


def _split_name(split: str, text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", split):
        raise LostattnError(f"the data {shown(text)} names no split behind #: write NAME#test")
    return split


def _nowhere(text: str, hint: str) -> NoReturn:
    name = text.partition("#")[0]
    also = ""
    if _HUB.fullmatch(name) and not name.startswith("hf:") and not name.lower().endswith(_ENDINGS):
        also = f" here (the Hub's data set of that name is hf://datasets/{shown(name)})"
    raise LostattnError(f"the data {shown(text)} does not exist{also}: {hint}")
