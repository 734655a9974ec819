"""How users write repositories, branches and tags."""

from __future__ import annotations

import re

from ...patches.errors import LostattnError

MAIN = "main"
_REF = re.compile(r"(?!.*(?:\.\.|//|@\{|\.lock$))[\w][\w./-]{0,249}(?<![./])", re.ASCII)


def check_repo(repo: str, what: str = "the repository") -> str:
    """`user/name`, as the Hub accepts it. Raises LostattnError."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise LostattnError(f"{what} '{repo[:100]}' is no Hub id: write it as user/name") from None
    if repo.count("/") != 1:
        raise LostattnError(f"{what} '{repo[:100]}' lacks its owner: write it as user/name")
    return repo


def check_ref(name: str | None, what: str) -> str | None:
    """A branch, tag or commit, as git accepts it. Raises LostattnError."""
    if name is not None and not _REF.fullmatch(name):
        raise LostattnError(f"{what} '{name[:100]}' is no git name: use letters, digits, '-', '_', '.' and '/'")
    return name


def count_text(count: int) -> str:
    """1 file, 5 files."""
    return f"{count:,} file" + ("" if count == 1 else "s")


def size_text(size: int) -> str:
    """Bytes for people: 512 B, 1.5 kB, 4.98 GB."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{size} B" if unit == "B" else f"{value:.3g} {unit}"
