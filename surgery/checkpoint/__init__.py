"""Checkpoint folders: checking a source, writing a patched copy, verifying it, taking the patch back."""
