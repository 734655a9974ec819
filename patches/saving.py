"""What `save_pretrained` of a patched model adds, so that the folder loads through every door and can be verified and undone.

transformers writes configuration and weights. A patched folder also needs the code that its `auto_map` names, the
processor, a card, and the record `lostattn.json`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import platform
import re
import shutil
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import cached_file

from .errors import LostattnError
from .plan import Plan
from .side_files import CARD, CODE, RECORD, SIDE_FILES


def auto_map(config_class: type, model_class: type) -> dict[str, str]:
    """What `auto_map` of a patched config.json says."""
    module = CODE.removesuffix(".py")
    return {
        "AutoConfig": f"{module}.{config_class.__name__}",
        "AutoModelForImageTextToText": f"{module}.{model_class.__name__}",
    }


def part_with_links(folder: Path) -> None:
    """Remove weights of a folder that are links: writing into them would change the checkpoint that they came from."""
    for path in folder.glob("*.safetensors"):
        if path.is_symlink() or path.stat().st_nlink > 1:
            path.unlink()


def complete_folder(model: Any, folder: Path) -> None:
    """Add code, processor, card and record to a folder into which transformers has just saved a patched model.

    Args:
        model: the patched model.
        folder: where it was saved.

    Raises:
        LostattnError: the model's code cannot be found.
    """
    _copy_side_files(model.name_or_path, folder)
    (folder / CODE).write_text(code := model_code(model.sap_plan), encoding="utf-8")
    if not (folder / CARD).exists():
        (folder / CARD).write_text(_card(model), encoding="utf-8")
    config = (folder / "config.json").read_bytes()
    names = sorted(p.name for p in folder.iterdir() if p.name.endswith((".safetensors", ".safetensors.index.json")))
    files = {name: _record(folder / name, "carried") for name in names}
    files |= {"config.json": _record(folder / "config.json", "replaced"), CODE: _record(folder / CODE, "added")}
    record = {
        "format": 1,
        "lostattn": _lostattn_version(code),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "command": "save_pretrained",
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "base": {"repo": None, "revision": None, "folder": Path(str(model.name_or_path or "model")).name},
        "plan": model.sap_plan.digest,
        "saved": True,
        "files": dict(sorted(files.items())),
        "originals": {"config.json": {"text": _plain_config(json.loads(config), type(model))}},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def model_code(plan: Plan) -> str:
    """Text of `modeling_sap.py`: this file where it is that, else put together from the installed modules.

    Raises:
        LostattnError: this is neither a checkpoint's own code nor an installed lostattn.
    """
    if Path(__file__).name == CODE:
        return Path(__file__).read_text(encoding="utf-8")
    try:
        make = importlib.import_module(".bundle", __package__)
    except ImportError as error:
        raise LostattnError(f"the code of the patched model cannot be found ({error}): install lostattn") from error
    return make.bundle(plan.family, plan.mode)


def _lostattn_version(code: str) -> str:
    result = re.match(r'"""Model code of a checkpoint patched by lostattn (\S+):', code)
    try:
        return result[1] if result and Path(__file__).name == CODE else version("lostattn")
    except PackageNotFoundError:
        return "0+unknown"


def _copy_side_files(source: Any, folder: Path) -> None:
    """Processor and tokenizer from where the model came from; nothing is downloaded, and nothing is overwritten."""
    if not source:
        return
    for name in SIDE_FILES:
        if (folder / name).exists():
            continue
        try:
            file = cached_file(source, name, local_files_only=True)
        except (OSError, ValueError):  # not there, or the model came from nowhere
            continue
        if file is not None:
            shutil.copyfile(file, folder / name)


def _record(path: Path, role: str) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "role": role, "placed": "written", "sha256": digest}


def _plain_config(config: dict[str, Any], model_class: Any) -> str:
    """config.json of the same weights without the patch."""
    kept = {key: value for key, value in config.items() if key not in ("sap", "auto_map")}
    other = {k: v for k, v in config.get("auto_map", {}).items() if k not in auto_map(model_class, model_class)}
    plain = model_class.__mro__[2]
    kept |= {"model_type": config["model_type"].removeprefix("sap_"), "architectures": [plain.__name__]}
    return json.dumps(kept | ({"auto_map": other} if other else {}), indent=2, ensure_ascii=False) + "\n"


def _card(model: Any) -> str:
    plan, name = model.sap_plan, Path(str(model.name_or_path or "a model")).name
    layers = ", ".join(map(str, plan.layers)) or "none"
    return (
        "---\nlibrary_name: transformers\npipeline_tag: image-text-to-text\ntags:\n- lostattn\n- custom_code\n---\n\n"
        f"# {name}, patched\n\nIn layers {layers} the attention to image tokens is replaced by a Shared Attention Prior (mode "
        f"`{plan.mode}`, preset `{plan.preset}`, scores `{plan.scores}`, queries `{plan.queries}`): see `sap` in `config.json`.\n"
        "This folder was saved by `save_pretrained` of the patched model; its weights may have been trained since the patch.\n\n"
        "```python\nfrom lostattn.patches import load_patched  # pip install lostattn\n\n"
        'model = load_patched("path/to/this/folder")\n```\n\nWithout lostattn: '
        "`AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)`. In vLLM, with lostattn installed: "
        "`lostattn serve folder`.\n"
    )
