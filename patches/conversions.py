"""Checkpoint key renames for patched classes: transformers applies them to its own classes only."""

from __future__ import annotations

from transformers import conversion_mapping

from .family import Family


def inherit_conversions(patched: type, plain: type, model_type: str | None = None) -> None:
    """Give a patched class the key renames of the plain one.

    Without them published key names (`model.layers...`) would be unexpected, and the decoder would start from random
    weights with no more than a warning.
    """
    rules = conversion_mapping.get_checkpoint_conversion_mapping(plain.__name__)
    if rules is None and model_type is not None:
        rules = conversion_mapping.get_checkpoint_conversion_mapping(model_type)
    if rules:
        conversion_mapping.register_checkpoint_conversion_mapping(patched.__name__, rules, overwrite=True)


def inherit_key_renames(family: Family) -> None:
    """Published key names load into the patched classes of a family as into the plain ones."""
    inner = family.model_class.inner_class
    inherit_conversions(family.model_class, family.plain_class, family.name)
    inherit_conversions(inner, inner.__mro__[2])
