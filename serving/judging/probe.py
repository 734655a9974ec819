"""KV cache of single requests, measured at the server: blocks that one request holds when nothing else runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...patches.errors import LostattnError
from ..client import data_url
from .client import Client
from .metrics import Pool, blocks_in_use, fetch, peak_blocks, read_pool
from .sides import Side
from .sizes import Size, load_processor

WORDS = "tell me what this picture shows and be brief about it please now "
IDLE = 30.0  # seconds
# the last block lives shortly and may be missed: requests, and steps of all together, that find nothing larger
TRIES, STEPS, PATIENCE = 3, 128, 6


def probe(server: Any, side: Side, size: Size, text: str, output_tokens: int) -> dict[str, Any]:
    """One request alone on a server.

    Returns:
        its tokens (`visual`, `text` including template and output), KV `blocks` and `bytes` at its peak, and how many
        such requests `fit` into the pool.

    Raises:
        LostattnError: the server refuses the request, or the picture has another number of tokens than the processor said.
    """
    pool = read_pool(fetch(server.root))
    _wait_until_idle(server.root, pool)
    client = Client(server, side.image_token)
    try:
        with peak_blocks(server.root, pool) as peak:
            least, seen, since = max(TRIES, -(-STEPS // output_tokens)), 0, 0
            for seed in range(PATIENCE * least):
                reply = client.ask(noise(size, seed), text, output_tokens, ignore_eos=True)
                seen, since = peak[0], 0 if peak[0] > seen else since + 1
                if seen and since == least:
                    break
    finally:
        client.close()
    if reply.visual != size.visual:
        raise LostattnError(
            f"a picture of {size.width} x {size.height} has {reply.visual} visual tokens in the server of {side.name} and "
            f"{size.visual} in the processor: the two disagree, so leave this size out of --visual-tokens"
        )
    others = reply.prompt_tokens - reply.visual + reply.output_tokens
    return {
        "visual": reply.visual, "text": others, "blocks": peak[0], "bytes": peak[0] * pool.block_bytes,
        "fit": (pool.blocks - 1) // peak[0] if peak[0] else None,
    }  # fmt: skip


def words(folder: Path, count: int) -> str:
    """A text of about so many tokens in a folder's own tokenizer."""
    tokenizer = load_processor(folder).tokenizer
    ids = tokenizer(WORDS * (count // 10 + 1), add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(ids[:count]))


def noise(size: Size, seed: int = 0) -> str:
    """A picture of random pixels as a data URL."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size.height, size.width, 3), dtype=np.uint8)
    return data_url(Image.fromarray(pixels))


def _wait_until_idle(root: str, pool: Pool) -> None:
    """The gauge tells of the engine's last step, which may have been somebody else's."""
    until = time.monotonic() + IDLE
    while blocks_in_use(fetch(root), pool) and time.monotonic() < until:
        time.sleep(0.1)
