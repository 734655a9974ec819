"""Write the parts of the reference that come from the code: python docs/generate.py

Each part stands in its page between `<!-- generated: NAME -->` and `<!-- end of NAME -->`; what is around it is written by hand.
`tests/test_docs.py` fails where a page is out of date.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click

REFERENCE = Path(__file__).resolve().parent / "reference"
WIDTH = 100
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$")
ITEM = re.compile(r"^ {4}(\*{0,2}[\w.]+(?:, [\w.]+)*): ")


def command_line() -> Iterator[str]:
    """Help of every command, as the shell prints it."""
    cli = importlib.import_module("lostattn.surgery.cli")
    yield from _commands(cli.main, None, "lostattn")


def _commands(command: click.Command, parent: click.Context | None, path: str) -> Iterator[str]:
    name = path.rsplit(" ", 1)[-1]
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    if hasattr(command, "_help_option"):
        command._help_option = None  # click keeps the one of whoever asked first
    context = click.Context(command, parent=parent, info_name=name, **settings)
    yield f"## {path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            inner = command.get_command(context, child)
            assert inner is not None
            yield from _commands(inner, context, f"{path} {child}")


def python() -> Iterator[str]:
    """What `import lostattn` gives, then the names of the floors that are public."""
    yield from _names(importlib.import_module("lostattn"), "lostattn")


def patches() -> Iterator[str]:
    """The same for lostattn.patches, without what `lostattn` gives under another name."""
    top = importlib.import_module("lostattn")
    known = {id(getattr(top, name)) for name in top.__all__}
    yield from _names(importlib.import_module("lostattn.patches"), "lostattn.patches", known)


def measures() -> Iterator[str]:
    """The functions of lostattn.measures."""
    module = importlib.import_module("lostattn.surgery.measures")
    yield _prose(inspect.getdoc(module) or "") + "\n"
    yield from _names(module, "lostattn.measures")


def _names(module: ModuleType, prefix: str, known: set[int] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
    for name in sorted(module.__all__):
        thing = getattr(module, name)
        if not isinstance(thing, ModuleType) and id(thing) not in known:
            yield _entry(thing, f"{prefix}.{name}")


def _entry(thing: Any, path: str) -> str:
    kind = "class " if inspect.isclass(thing) else ""
    plain = inspect.isclass(thing) and issubclass(thing, Exception)
    head = f"### {path}\n\n```py\n{kind}{path.rsplit('.', 1)[-1]}{'' if plain else _signature(thing)}\n```\n"
    return f"{head}\n{_prose(inspect.getdoc(thing) or '')}\n"


def _signature(thing: Any) -> str:
    """One line, or one argument a line where one is too long."""
    signature = inspect.signature(thing)
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(signature))
    text = re.sub(r"\b(collections\.abc|typing|pathlib)\.", "", text)
    text = (
        re.sub(r"lostattn\.\w+(\.\w+)*\.(\w+)", r"\2", text).replace("<factory>", "...").replace("torch._C.", "torch.")
    )
    if len(text) <= WIDTH - 20:
        return text
    arguments, _, result = text[1:].rpartition(")")
    return "(\n    " + ",\n    ".join(_split(arguments)) + f",\n){result}"


def _split(arguments: str) -> list[str]:
    """Arguments apart, not at commas inside brackets."""
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _prose(doc: str) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines: list[str] = []
    section = ""
    for line in doc.splitlines():
        if match := SECTION.match(line):
            section = match[1]
            lines += [f"**{'Arguments' if section == 'Args' else section}**", ""]
        elif section and not line.startswith("    ") and line.strip():
            section = ""
            lines.append(line)
        elif section in ("Args", "Attributes", "Raises") and (item := ITEM.match(line)):
            lines.append(f"* `{item[1]}`: {line[item.end() :]}")
        else:
            lines.append(line.strip() if section else line)
    return _wrapped_with_indent(lines)


def _wrapped_with_indent(lines: list[str]) -> str:
    """Lines that go on an item are indented under it."""
    out: list[str] = []
    inside = False
    for line in lines:
        inside = line.startswith("* ") or (inside and bool(line.strip()))
        out.append(f"  {line}" if inside and not line.startswith("* ") else line)
    return "\n".join(out).strip()


def options() -> Iterator[str]:
    """The options object, as a table from its docstring."""
    top = importlib.import_module("lostattn")
    public = [getattr(top, name) for name in top.__all__]
    kind = next(thing for thing in public if dataclasses.is_dataclass(thing) and thing is not top.Plan)
    meanings = _meanings(kind)
    yield "| key | default | meaning |\n|---|---|---|\n"
    for field in dataclasses.fields(kind):
        default = "`{}`" if field.default is dataclasses.MISSING else f"`{field.default}`"
        default = "of preset or family" if field.default is None else default
        yield f"| `{field.name}` | {default} | {meanings[field.name]} |\n"


def _meanings(thing: Any) -> dict[str, str]:
    """Attribute -> its line of the docstring."""
    text = (inspect.getdoc(thing) or "").partition("Attributes:\n")[2]
    joined = re.sub(r"\n {8,}", " ", text)
    return {m[1]: m[2].replace("|", "\\|") for m in re.finditer(r"^ {4}(\w+): (.*)$", joined, re.MULTILINE)}


PARTS: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
    "command line": ("command-line.md", command_line),
    "lostattn": ("python.md", python),
    "lostattn.patches": ("python.md", patches),
    "lostattn.measures": ("python.md", measures),
    "options": ("plan-format.md", options),
}


def pages() -> dict[Path, str]:
    """Every page with generated parts, as it should be."""
    texts: dict[Path, str] = {}
    for name, (page, make) in PARTS.items():
        path = REFERENCE / page
        text = texts.get(path) or path.read_text(encoding="utf-8")
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            sys.exit(f"{page} has no part '{name}': write {begin.strip()} and {end} into it")
        joiner = "" if name == "options" else "\n"
        texts[path] = f"{before}{begin}\n{joiner.join(make()).strip()}\n\n{end}{after}"
    return texts


def main() -> None:
    """Write what differs, and say it."""
    for path, text in pages().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
