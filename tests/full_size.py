"""vLLM's settled configuration of a published model, full size, from its config alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lostattn.patches.plan import Plan
from lostattn.serving.plugin import register
from lostattn.surgery.checkpoint.write import patched_config
from lostattn.surgery.planner import make_plan
from lostattn.surgery.spec import PatchSpec
from served import tokenizer


def settle(config: Mapping[str, Any], folder: Path, spec: dict[str, Any], **options: Any) -> tuple[Plan, Any]:
    """Plan and vLLM's settled configuration."""
    from vllm.engine.arg_utils import EngineArgs

    register()
    plan = make_plan(PatchSpec(**spec), config, None).plan
    (folder / "config.json").write_text(json.dumps(patched_config(config, plan)))
    tokenizer().save_pretrained(folder)
    args = EngineArgs(model=str(folder), skip_tokenizer_init=True, max_model_len=4096, enforce_eager=True, **options)
    return plan, args.create_engine_config()
