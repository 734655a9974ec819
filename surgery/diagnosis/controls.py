"""Controls of the paper's 4.2: what unlearned updates would look like. Each leaves the model bit for bit as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...patches.family import decoder_of

QKV = ("q_proj", "k_proj", "v_proj")
FFN = ("gate_proj", "up_proj", "gate_up_proj", "down_proj")  # the third in GLM, instead of the first two


def noise_update(before: torch.Tensor, after: torch.Tensor, seed: int) -> torch.Tensor:
    """Noise-Delta: the update after - before replaced by Gaussian noise of the same mean and standard deviation.

    Args:
        before, after: (..., S, H).

    Returns:
        The state that the noise leads to, float64, same shape.
    """
    update = after.double() - before.double()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(update.shape, generator=generator, dtype=torch.float64).to(update.device)
    return before.double() + update.mean() + noise * update.std(correction=0)


@contextmanager
def noise_weights(model: Any, names: tuple[str, ...], seed: int = 0) -> Iterator[list[str]]:
    """Noise-QKV and Noise-FFN: decoder weights replaced by Gaussian ones of the same mean and standard deviation.

    Every tensor draws from a seed of its own, made of `seed` and its name (the authors use one seed for all, which makes
    equally shaped tensors copies of each other). Biases stay. The vision tower is not touched.

    Args:
        names: module names within a layer, `QKV` or `FFN`.

    Yields:
        The names of the replaced tensors.
    """
    layers = decoder_of(model.model).layers
    results = {n: m.weight for n, m in layers.named_modules() if n.split(".")[-1] in names}
    kept = {n: w.detach().clone() for n, w in results.items()}
    try:
        with torch.no_grad():
            for name, weight in results.items():
                weight.copy_(_gaussian_like(weight, f"{seed} {name}"))
        yield list(results)
    finally:
        with torch.no_grad():
            for name, weight in results.items():
                weight.copy_(kept[name])


def _gaussian_like(weight: torch.Tensor, name: str) -> torch.Tensor:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    mean, std = weight.float().mean(), weight.float().std(correction=0)
    return (noise.to(weight.device) * std + mean).to(weight.dtype)


@contextmanager
def without_rope(model: Any, samples: list[int] | None = None) -> Iterator[None]:
    """Decoder without rotary positions: cosines 1, sines 0, for the given samples of a batch or for all.

    With samples [1] of a batch of two equal prompts both versions of every state run side by side, so that eps_RoPE needs
    no stored states.
    """

    def still(
        _: Any, args: tuple[Any, ...], out: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = out  # (B or 1, S, D)
        batch = args[0].shape[0]
        cos, sin = (x.expand(batch, -1, -1).clone() for x in (cos, sin))
        rows = slice(None) if samples is None else samples
        cos[rows], sin[rows] = 1, 0
        return cos, sin

    handle = decoder_of(model.model).rotary_emb.register_forward_hook(still)
    try:
        yield
    finally:
        handle.remove()
