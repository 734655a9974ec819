"""Names of the files beside the weights of a patched checkpoint. Nothing here needs torch."""

from __future__ import annotations

from fnmatch import fnmatch

CODE, RECORD, CARD = "modeling_sap.py", "lostattn.json", "README.md"
# Files beside the weights that belong to a model, whoever writes them and whenever.
SIDE_FILES = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
TEMPLATES = "additional_chat_templates/*.jinja"


def is_side_file(name: str) -> bool:
    """True for files of processor, tokenizer and generation, which may be written after the record."""
    return name in SIDE_FILES or fnmatch(name, TEMPLATES)
