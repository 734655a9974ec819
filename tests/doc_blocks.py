"""Blocks of the documents, and how each is run: as it stands, elsewhere, or not at all for a reason that the page gives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- (not run|tested by)[: ] *([^\n]*?) -->\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block. mark: '', 'not run' (a reason follows) or 'tested by' (a file of tests and a reason follow)."""

    page: Path
    mark: str
    why: str
    kind: str
    text: str

    @property
    def session(self) -> bool:
        """Whether it shows commands behind `$ ` and what they print."""
        return self.kind == "text" and self.text.startswith("$ ")

    @property
    def runs(self) -> bool:
        """Whether the block is run as it stands."""
        return not self.mark and (self.kind in ("sh", "python") or self.session)


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [Block(page, *(m or "" for m in found)) for found in BLOCK.findall(text)]


def scripts(page: Path) -> list[tuple[str, str]]:
    """('sh' or 'session', text) of what is run, in order; Python blocks that follow one another share their names."""
    parts: list[tuple[str, str]] = []
    for block in blocks(page):
        if not block.runs:
            continue
        if block.kind == "python" and parts and parts[-1][0] == "python":
            parts[-1] = ("python", parts[-1][1] + block.text)
        else:
            parts.append(("session" if block.session else block.kind, block.text))
    return [("sh", f"python - <<'END-OF-BLOCK'\n{t}END-OF-BLOCK\n") if k == "python" else (k, t) for k, t in parts]


def calls(session: str) -> list[tuple[str, str]]:
    """(command, what it prints) of a session."""
    return [
        (c.splitlines()[0], "\n".join(c.splitlines()[1:])) for c in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]
    ]


def as_shown(shown: str, printed: str) -> bool:
    """Whether all lines that a session shows were printed, in that order; `...` stands for others.

    How weights are shared depends on the file system: link, reflink and copy count as the same word.
    """
    lines = iter(_lines(printed))
    return all(line in lines for line in _lines(shown) if line not in ("", "..."))


def _lines(text: str) -> list[str]:
    return [re.sub(r"\b(reflink|copy)\b", "link", line).rstrip() for line in re.split(r"[\r\n]", text)]
