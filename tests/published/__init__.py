"""config.json files of published models, family by family, cut down to what decides their shape, beside the paper's 15.

Every file names the models of some families in `MODELS`. What is read from a copy of the published file stands so; what is
known from elsewhere (a paper, the code that wrote the file, the language model inside) is marked.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """One model.

    Attributes:
        config: its config.json, cut down.
        source: where a copy of its numbers stands, publicly.
        unconfirmed: what no copy of the file itself was found for; empty if all of it was compared.
        shrunken: the size of its family that is also written small, cut, asked and mended.
    """

    config: dict[str, Any]
    source: str
    unconfirmed: str = ""
    shrunken: bool = False


def find_models() -> dict[str, Published]:
    """Every file of this folder, its models by name."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__))
    return {k: v for n in names for k, v in importlib.import_module(f"{__name__}.{n}").MODELS.items()}
