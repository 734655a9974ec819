"""Put on PYTHONPATH of vLLM's processes: `sitecustomize` runs at the start of each, whatever vLLM starts."""
