"""vLLM plugin (entry point group `vllm.general_plugins`): makes patched checkpoints known to vLLM.

vLLM calls `register` in every process: API server, model inspection, engine core and workers. Nothing of vLLM or torch is
imported before that, and what it registers are names: the model classes load when a patched model does.
"""

from __future__ import annotations

import os

_done: list[int] = []


def register() -> None:
    """Register configs, model classes, attention backends and KV-cache specs; may be called again.

    Raises:
        LostattnError: the installed vLLM is outside the supported range.
    """
    if os.getpid() in _done:
        return
    from ..patches.torchvision_ops import make_torchvision_importable

    make_torchvision_importable()
    from .engine.versions import check_vllm

    check_vllm()
    from .engine.registration import register_all

    register_all()
    _done[:] = [os.getpid()]
