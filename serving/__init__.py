"""Running and judging patched models."""
