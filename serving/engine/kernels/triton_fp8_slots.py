"""Running summaries in slots of an 8-bit cache: what `Pages.write_summaries` is for caches of 16 and 32 bits. Plain torch.

Key and value of a slot have 16 bits a channel together. They hold the mean in float16 (11 significant bits, bfloat16 has 8),
multiplied by a power of two for each KV head that brings its largest channel to 2^14..2^15: so neither is the range that of
float16, nor is anything lost that bfloat16 would keep, down to 2^-29 of the largest channel; below that the error is at most
2^-38 of the largest. The lowest bits of channels 0..31 are those of the float32 log mass, and the lowest bits of channels
32..39 the exponent of that power, so that a mean is kept with a relative error of 2^-10 + 2^-11 there (bfloat16: 2^-8).
The low byte of a channel lies in the key, the high byte in the value.
"""

from __future__ import annotations

import torch

MASS, EXPONENT = 32, 8  # bits of a float32 and of its exponent
HIGHEST = 14  # exponent of the largest channel of a row


def pack_fp8(log_mass: torch.Tensor, mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes of the key and of the value of slots.

    Args:
        log_mass: (w,) float32. mean: (w, H, D) float32, D at least 40.

    Returns:
        uint8 (w, H, D) each.
    """
    field = ((mean.abs().amax(-1).contiguous().view(torch.int32) >> 23) - HIGHEST).clamp_min(1)  # (w, H)
    bits = (mean * _power(254 - field)[..., None]).half().view(torch.int16).int()
    lowest = torch.cat(
        [_bits(log_mass.view(torch.int32), MASS)[:, None].expand(-1, mean.shape[1], -1), _bits(field, EXPONENT)], -1
    )
    bits[..., : MASS + EXPONENT] = (bits[..., : MASS + EXPONENT] & ~1) | lowest
    return (bits & 0xFF).to(torch.uint8), ((bits >> 8) & 0xFF).to(torch.uint8)


def unpack_fp8(key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log mass (w,) and mean (w, H, D), float32, of bytes (w, H, D) uint8 of slots."""
    bits = key.int() | (value.int() << 8)
    half = torch.where(bits >= 1 << 15, bits - (1 << 16), bits).to(torch.int16).view(torch.float16)
    lowest = bits & 1
    mass = _number(lowest[:, 0, :MASS]).contiguous().view(torch.float32)
    field = _number(lowest[..., MASS : MASS + EXPONENT])
    return mass, half.float() * _power(field)[..., None]


def _power(field: torch.Tensor) -> torch.Tensor:
    """The float32 with this exponent field: 2^(field - 127)."""
    return (field << 23).contiguous().view(torch.float32)


def _bits(number: torch.Tensor, count: int) -> torch.Tensor:
    """The lowest bits of int32 numbers, (..., count)."""
    return (number[..., None] >> torch.arange(count, dtype=torch.int32, device=number.device)) & 1


def _number(bits: torch.Tensor) -> torch.Tensor:
    """The int32 number of bits (..., count)."""
    return (bits << torch.arange(bits.shape[-1], dtype=torch.int32, device=bits.device)).sum(-1, dtype=torch.int32)
