"""Benchmark tasks: rows, prompts, parsers and metrics. One file each, `task_<name>.py`, found by its name."""
