"""From a template to one HTML page that stands alone: no script, no network, every text escaped."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from .charts import colour, second_round
from .words import mood

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """The page of a template, such as `evaluation`."""
    return str(_environment().get_template(f"{template}.html").render(policy=POLICY, **values))


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"plain": lambda text: text.replace("`", ""), "marked": _marked, "mood": mood}
    made.globals |= {"colour": colour, "second_round": second_round}
    return made


def _marked(text: str) -> Any:
    """`**best**` and `<u>second</u>` of Markdown tables as HTML; everything else is escaped."""
    from markupsafe import Markup, escape

    safe = str(escape(text)).replace("&lt;u&gt;", "<u>").replace("&lt;/u&gt;", "</u>")
    return Markup(re.sub(r"^\*\*([^*]+)\*\*", r"<b>\1</b>", safe))
