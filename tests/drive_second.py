"""`drive.py` with Triton's interpreter standing in for a GPU, so that vLLM's second model runner can run here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import triton.backends

sys.path.insert(0, str(Path(__file__).parent))


class Driver:
    """vLLM asks whether a driver is active."""

    @staticmethod
    def is_active() -> bool:
        """Always."""
        return True


triton.backends.backends["cpu"] = SimpleNamespace(driver=Driver, compiler=None)

if __name__ == "__main__":
    from drive import main

    main()
