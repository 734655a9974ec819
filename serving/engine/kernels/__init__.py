"""What computes patched heads: plain torch, numba on CPUs, Triton on GPUs, chosen in `choose`. Needs no vLLM."""
