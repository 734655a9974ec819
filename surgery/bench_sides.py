"""Patched folders for `lostattn bench serve --plan`: plans by name or from files, written beside the report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..patches.errors import LostattnError
from ..serving.disk import read_json
from ..serving.shape import model_shape
from .patch import patch_from_spec, prepare
from .spec import PatchSpec, read_spec

READY = ("all", "but-first", "every-second")
logger = logging.getLogger(__name__)


def ready_spec(name: str, layers: int) -> PatchSpec:
    """A plan of whole layers: all of them, all but the first, or every second one (1, 3, ...).

    Raises:
        LostattnError: the model has too few layers for it.
    """
    chosen = {"all": range(layers), "but-first": range(1, layers), "every-second": range(1, layers, 2)}[name]
    if not chosen:
        raise LostattnError(f"plan '{name}' needs more than one layer, and the model has {layers}: take plan all")
    return PatchSpec(mode="patch_complexity", layers=list(chosen), heads="all")


def plan_folders(base: Path, plans: Sequence[str], out: Path) -> list[Path]:
    """One patched folder for each plan under `out`, named after the plan; those that are there already stay.

    Args:
        plans: names of `READY`, or YAML files with the options of `lostattn patch`.

    Raises:
        LostattnError: an unknown name, a plan that the model cannot have, two plans of one name.
    """
    names = [plan if plan in READY else Path(plan).stem for plan in plans]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise LostattnError(f"two plans are called {', '.join(repeated)}: give each once, under a name of its own")
    return [_folder(base, plan, out / name) for plan, name in zip(plans, names, strict=True)]


def _folder(base: Path, plan: str, folder: Path) -> Path:
    if plan in READY:
        spec = ready_spec(plan, model_shape(read_json(base / "config.json", f"config.json in {base}")).layers)
    else:
        spec = read_spec(plan)
    config = folder / "config.json"
    if config.is_file():
        planned = prepare(base, spec).planned.plan
        if read_json(config, f"config.json in {folder}").get("sap") == planned.to_json():
            return folder
        raise LostattnError(f"{folder} holds another plan: choose another --out, or remove that folder")
    logger.info(f"patching with plan {folder.name}")
    patch_from_spec(base, folder, spec)
    return folder
