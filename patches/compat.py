"""The transformers versions that the patched classes were tested with."""

from __future__ import annotations

import transformers

from .errors import LostattnError

OLDEST = (5, 19)
BEFORE = (6, 0)


def check_versions() -> None:
    """Raise LostattnError, with the mend, if the installed transformers is outside the supported range."""
    found = tuple(int(x) for x in transformers.__version__.split(".")[:2])
    if not OLDEST <= found < BEFORE:
        wanted = f">={'.'.join(map(str, OLDEST))},<{'.'.join(map(str, BEFORE))}"
        raise LostattnError(
            f"transformers {transformers.__version__} is not supported: pip install 'transformers{wanted}'"
        )
