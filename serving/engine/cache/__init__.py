"""The KV cache of patched layers: spec, manager, scheduler, groups, and how keys, values and summaries lie in its blocks."""
