"""What another program's exception says, in one line."""

from __future__ import annotations

LONGEST = 200


def cause(error: BaseException) -> str:
    """First line of an exception's message, with what it announces, else the name of the exception's kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    announced = lines[1] if lines[0].endswith(":") and len(lines) > 1 else ""
    return f"{lines[0]} {announced}".strip()[:LONGEST]
