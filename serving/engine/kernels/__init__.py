"""Kernels of the patched layers. Importing this package imports neither vLLM nor Triton."""
