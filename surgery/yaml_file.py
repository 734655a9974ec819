"""Users' YAML files, read as people mean them: the scalars of YAML 1.2's core schema, and no key twice."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ..patches.errors import LostattnError
from ..serving.cause import cause

_PREFIX = "tag:yaml.org,2002:"
# Dates, sexagesimal numbers, octal 010, 1_000 and yes/no/on/off are text in the core schema; 1e-2 is a number.
_CORE = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    """The core schema; keys once."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - as the library declares it

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping; a key that stands there twice is an error."""
        seen: set[Any] = set()
        for key, _ in node.value:
            result = self.construct_object(key, deep=True)
            if isinstance(result, Hashable) and result in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands there twice", key.start_mark
                )
            seen |= {result} if isinstance(result, Hashable) else set()
        return super().construct_mapping(node, deep)

    def whole_number(self, node: Any) -> int:
        """Decimal, whatever zeros stand in front; 0o17 and 0x1F."""
        text = self.construct_scalar(node)
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text[2:] if base != 10 else text, base)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever one of the two schemas would not read as text."""

    yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}  # noqa: RUF012


for _tag, _pattern, _first in _CORE:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_PREFIX + _tag, re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor(_PREFIX + "int", _Loader.whole_number)


def read_yaml(path: str | Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file; `what` names the file in messages.

    Raises:
        LostattnError: no such file, not YAML, a key twice, no mapping.
    """
    try:
        raw = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise LostattnError(f"cannot read {what} {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or thousands of digits
        raise LostattnError(f"{what} {path} is not YAML: {_problem(error)}") from error
    if not isinstance(raw, dict):
        raise LostattnError(f"{what} {path} must hold 'name: value' lines")
    return raw


def to_yaml(value: Any) -> str:
    """YAML that reads back the same under both schemas."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False))


def _problem(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"{problem} in line {mark.line + 1}" if mark is not None and problem else cause(error)
