"""Speed and memory of original and patched models, served by vLLM under the same load."""
