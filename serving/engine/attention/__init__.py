"""Attention of patched layers: backends, metadata of a step, implementations, and their place in the model."""
