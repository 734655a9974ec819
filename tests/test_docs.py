"""README and docs: links lead somewhere, commands and options exist, Python names can be imported."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from doc_blocks import PAGES, ROOT, blocks
from lostattn.surgery.cli import main


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: Path) -> Iterator[list[str]]:
    """Words of every call of lostattn in a page's shell blocks and sessions."""
    for block in blocks(page):
        kind = block.kind
        if kind not in ("sh", "text"):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            if "lostattn " not in line:
                continue
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|;&()")
            lexer.whitespace_split = True
            try:
                words = list(lexer)
            except ValueError:
                assert kind == "text", f"{page.name}: {line}"  # output with an apostrophe
                continue
            for at, word in enumerate(words):
                if word == "lostattn" and (at == 0 or words[at - 1] in ("&&", "||", ";", "|")):
                    yield list(itertools.takewhile(lambda w: not set(w) <= set("|;&()"), words[at + 1 :]))


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path) if path else page
        assert to.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(to), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page):
        command: click.Command = main
        context = click.Context(main, info_name="lostattn", **main.context_settings)
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(context, words[0])
            assert found is not None, f"{page.name}: no command {words[0]}"
            command, words = found, words[1:]
        known = {option for p in command.get_params(context) for option in (*p.opts, *p.secondary_opts)}
        for word in words[: words.index("--") if "--" in words else None]:
            if word.startswith("--") or re.fullmatch(r"-[a-z]", word):
                option = word.split("=")[0]
                assert option in known, f"{page.name}: {command.name} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_blocks_are_python_whose_imports_exist(page: Path) -> None:
    for text in (block.text for block in blocks(page) if block.kind == "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lostattn"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_something_is_looked_at() -> None:
    assert sum(1 for page in PAGES for _ in commands(page)) > 30
    assert sum(1 for page in PAGES for block in blocks(page) if block.kind == "python") > 1


def test_the_readme_is_short_and_names_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 180
    index = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert name(page) in text, page
        assert name(page).removeprefix("docs/") in index, page


def test_every_test_that_is_named_exists() -> None:
    for page in PAGES:
        for file, function in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text(encoding="utf-8")):
            assert (ROOT / file).is_file(), f"{name(page)}: {file}"
            assert f"def {function}" in (ROOT / file).read_text(encoding="utf-8"), (
                f"{name(page)}: {file} has no {function}"
            )


def test_generated_parts_are_those_of_the_code() -> None:
    for path, text in script("generate").pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{name(path)} is out of date: run python docs/generate.py"


def test_the_notebook_is_that_of_its_script() -> None:
    made = script("notebook")
    notebook = json.loads(made.NOTEBOOK.read_text(encoding="utf-8"))
    assert ["".join(cell["source"]) for cell in notebook["cells"]] == made.CELLS, "run python docs/notebook.py"
    assert made.NOTEBOOK.stat().st_size < 200_000
    pictures = [o for cell in notebook["cells"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 2


def script(stem: str) -> Any:
    """A script of docs/, imported."""
    spec = importlib.util.spec_from_file_location(f"docs_{stem}", ROOT / "docs" / f"{stem}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
