"""Make patched classes known to transformers."""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForImageTextToText

from .conversions import inherit_key_renames
from .family import FAMILIES, Family


def register_auto_classes() -> None:
    """Let AutoConfig and AutoModelForImageTextToText load patched checkpoints of every family; may run again."""
    for family in FAMILIES.values():
        register_classes(family)


def register_classes(family: Family) -> None:
    """The same for one family."""
    AutoConfig.register(family.config_class.model_type, family.config_class, exist_ok=True)
    AutoModelForImageTextToText.register(family.config_class, family.model_class, exist_ok=True)
    inherit_key_renames(family)
