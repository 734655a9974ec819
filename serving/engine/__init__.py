"""SAP inside vLLM: the only folder that knows vLLM. Loaded by `lostattn.serving.plugin` in vLLM's processes."""
