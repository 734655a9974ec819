"""What of a folder belongs to its model. All else stays at home: secrets, a training's leavings, weights nobody loads.

Only kinds of files that a model, its processor or its card are known to consist of travel. A name that looks like a secret
stays even then, and so does a text that holds a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ...patches.errors import LostattnError
from ...serving.disk import disk_errors

PRIVATE, TRAINING, OTHER = "private", "training", "other weights"
ADAPTER, UNUSED, UNKNOWN = "adapters", "unused weights", "no part of a model"
WHY = {
    PRIVATE: "secrets and dot files never travel",
    TRAINING: "left over from training",
    OTHER: "the weights in other forms",
    ADAPTER: "an adapter that nothing loads by itself",
    UNUSED: "weights that transformers does not load",
    UNKNOWN: "of no kind that models consist of",
}

_SECRET_NAMES = (
    *(".*", "netrc", "_netrc", "env", "*.env", "token", "token.*", "tokens", "stored_tokens", "auth.json", "htpasswd"),
    *(
        "id_rsa*",
        "id_dsa*",
        "id_ecdsa*",
        "id_ed25519*",
        "authorized_keys*",
        "known_hosts*",
        "kubeconfig*",
        "*.pem",
        "*.key",
    ),
    *("*credential*", "*secret*", "*passwd*", "*password*", "*private_key*", "*private-key*", "*service_account*"),
    *("*service-account*", "*api_key*", "*api-key*", "*apikey*", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.ppk"),
    *("*.kdbx", "*.gpg", "*.asc", "*.crt", "*.cer", "*.der", "*.ovpn", "*.tfstate", "*.tfvars"),
)
_SECRET_TOKEN = re.compile(
    r"(^|[._-])(hf|hub|gh|github|gitlab|access|auth|api|bearer|refresh|wandb|openai)[._-]?tokens?([._-]|$)"
)
_TRAINING_FOLDERS = (
    *(
        "checkpoint-*",
        "tmp-checkpoint-*",
        "global_step*",
        "runs",
        "wandb",
        "mlruns",
        "lightning_logs",
        "swanlog",
        "logs",
        "log",
    ),
    *("tensorboard*", "tb_logs", "ray_results", "hydra", "pytorch_model_fsdp*", "optimizer_*", "venv", "node_modules"),
    *("__pycache__", "__macosx"),
)
_TRAINING_FILES = (
    *("optimizer.*", "optimizer_*", "scheduler.*", "scaler.*", "rng_state*", "random_states*", "training_args.*"),
    *("trainer_state*.json", "trainer_log*", "*_results.json", "generated_predictions*", "training_*.png", "*.distcp"),
    *("events.out.tfevents*", "latest", "zero_to_fp32.py", "zero_pp_rank_*", "bf16_zero_*", "mp_rank_*", "*.log"),
)
_ADAPTERS = ("adapter_config.json", "adapter_model.*", "adapter_model-*")
_KINDS = {
    ".jsonl",
    *(
        ".json",
        ".txt",
        ".md",
        ".rst",
        ".jinja",
        ".jinja2",
        ".j2",
        ".model",
        ".tiktoken",
        ".bpe",
        ".spm",
        ".vocab",
        ".dict",
    ),
    *(
        ".jsonl",
        ".csv",
        ".safetensors",
        ".py",
        ".npy",
        ".ttf",
        ".otf",
        ".png",
        ".jpg",
        ".jpeg",
        ".gif",
        ".webp",
        ".svg",
        ".pdf",
        ".mp4",
    ),
}
_NAMES = (
    "license*",
    "licence*",
    "notice*",
    "copying*",
    "readme*",
    "use_policy*",
    "usage_policy*",
    "merges*",
    "recipe.yaml",
)

_LOOKED_INTO = {".json", ".jsonl", ".csv", ".txt", ".md", ".rst", ".jinja", ".jinja2", ".j2", ".py", ".yaml", ""}
_NAMED = 40  # names in one sentence
_MOST = 2**20  # bytes of a text that is looked into: longer ones are vocabularies
_KEY = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY|(?<![A-Za-z0-9_])(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,}|"
    rb"sk-[A-Za-z0-9_-]{32,}|xox[abprs]-[A-Za-z0-9-]{20,}|AKIA[0-9A-Z]{16}|AIza[A-Za-z0-9_-]{35})(?![A-Za-z0-9_])"
)


def folder_reason(name: str) -> str | None:
    """Why a folder with all below it stays at home (a key of `WHY`), None if it may hold parts of the model."""
    base = PurePosixPath(name).name.lower()
    if base in ("__pycache__", "__macosx") or base.startswith(".") or _is_private(base):
        return PRIVATE if base not in ("__pycache__", "__macosx") else UNKNOWN
    return TRAINING if _any(base, _TRAINING_FOLDERS) else None


def file_reason(name: str) -> str | None:
    """The same for a file, by its own name and those of its folders."""
    path = PurePosixPath(name)
    for folder in path.parts[:-1]:
        if (reason := folder_reason(folder)) is not None:
            return reason
    base = path.name.lower()
    if _is_private(base):
        return PRIVATE
    if _any(base, _TRAINING_FILES):
        return TRAINING
    if len(path.parts) > 1 and _any(base, _ADAPTERS):
        return ADAPTER
    if path.suffix.lower() in _KINDS or _any(base, _NAMES):
        return None
    return UNKNOWN


def is_adapter(name: str) -> bool:
    """True for the files of an adapter (LoRA and the like)."""
    return _any(PurePosixPath(name).name.lower(), _ADAPTERS)


def holds_key(path: Path, name: str) -> bool:
    """True if a small text holds what looks like a private key or an access token."""
    if PurePosixPath(name).suffix.lower() not in _LOOKED_INTO:
        return False
    with disk_errors(f"cannot read {name}"):
        if path.stat().st_size > _MOST:
            return False
        return any(len(set(found)) > 12 for found in _KEY.findall(path.read_bytes()))


def refuse_keys(names: Iterable[str]) -> None:
    """LostattnError for parts of the model itself that hold a key."""
    if result := sorted(names):
        raise LostattnError(
            f"{result[0]} holds what looks like a private key or an access token, which would travel with the model: "
            "take it out first"
        )


def left_out_notes(left_out: Mapping[str, str]) -> list[str]:
    """One sentence per reason, every name in it (many names: the first few and their number)."""
    notes = []
    for reason, why in WHY.items():
        names = sorted(name for name, found in left_out.items() if found == reason)
        if names:
            shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
            notes.append(f"left at home: {shown} ({why})")
    return notes


def _is_private(base: str) -> bool:
    return _any(base, _SECRET_NAMES) or _SECRET_TOKEN.search(base) is not None


def _any(base: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(base, pattern) for pattern in patterns)
