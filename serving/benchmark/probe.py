"""KV cache of single requests: blocks that one request holds, as the server's engine notes them."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...patches.errors import LostattnError
from ..blocks_held import blocks_held
from ..client import Client, Turn
from ..sides import Side
from .metrics import fetch, read_pool
from .sizes import Size, load_processor

SECONDS = 1800.0  # for one answer: queues are long where the machine is slow
WORDS = "tell me what this picture shows and be brief about it please now "


def probe(server: Any, record: Path, side: Side, size: Size, text: str, output_tokens: int) -> dict[str, Any]:
    """One request on a server.

    Args:
        record: the file in which the server's engine notes the blocks of every request.

    Returns:
        its tokens (`visual`, `text` including template and output), KV `blocks` and `bytes` at its peak, and how many
        such requests `fit` into the pool.

    Raises:
        LostattnError: the server refuses the request, the picture has another number of tokens than the processor said, or
            the engine noted nothing.
    """
    pool = read_pool(fetch(server.root))
    client, turn = Client(server.url, server.name, timeout=SECONDS), _turn(text, size)
    try:
        # with a salt of its own no block of an earlier request is found again
        salt = secrets.token_hex(8)
        reply = client.ask([turn.to_openai()], output_tokens, token_ids=True, ignore_eos=True, cache_salt=salt)
    finally:
        client.close()
    visual = sum(reply.prompt.count(token) for token in side.visual_tokens)
    _check_visual(visual, side, size)
    blocks = blocks_held(record, reply.id)
    if not blocks:
        raise LostattnError(
            f"the server of {side.name} does not tell its KV blocks, so vLLM has not loaded lostattn's plugin: 'lostattn doctor' "
            "tells why (is VLLM_PLUGINS set without lostattn?)"
        )
    return {
        "visual": visual,
        "text": len(reply.prompt) - visual + reply.output_tokens,
        "blocks": blocks,
        "bytes": blocks * pool.block_bytes,
        "fit": (pool.blocks - 1) // blocks,
    }


def _turn(text: str, size: Size) -> Turn:
    if size.frames == 1:
        return Turn("user", text, (noise(size),))
    return Turn("user", text, videos=(noisy_video(size),))


def _check_visual(visual: int, side: Side, size: Size) -> None:
    what = "picture" if size.frames == 1 else "video"
    if visual != size.visual:
        raise LostattnError(
            f"a {what} of {size.width} x {size.height} has {visual} visual tokens in the server of {side.name} and "
            f"{size.visual} in the processor: the two disagree, so leave this size out of --visual-tokens"
        )


def words(folder: Path, count: int) -> str:
    """A text of about so many tokens in a folder's own tokenizer."""
    tokenizer = load_processor(folder).tokenizer
    ids = tokenizer(WORDS * (count // 10 + 1), add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(ids[:count]))


def noise(size: Size, seed: int = 0) -> Image.Image:
    """A picture of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size.height, size.width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def noisy_video(size: Size, seed: int = 0) -> bytes:
    """The file of a video of random pixels, as vLLM's benchmark makes them."""
    from vllm.benchmarks.datasets import RandomMultiModalDataset

    made = RandomMultiModalDataset(random_seed=seed).generate_synthetic_video(size.width, size.height, size.frames)
    return bytes(made["bytes"])
