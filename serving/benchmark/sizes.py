"""Pictures and videos that give a wanted number of visual tokens in a model's own processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...patches.errors import LostattnError
from ..cause import cause

UNITS = (28, 32, 14)  # pixels a side of one visual token in the families that scale
TILES = range(42, 2689, 42)  # sides of squares for those that cut tiles or take one size
FAR = 0.05
FRAMES = 4  # of a video: as many as vLLM takes at least, so that it takes them all
STEP = 2  # frames that a visual token covers in the families that vLLM's benchmark can ask with videos


@dataclass(frozen=True)
class Size:
    """A picture, or a video of several frames, and what the processor makes of it."""

    width: int
    height: int
    visual: int
    frames: int = 1


def picture_sizes(folder: Path, wanted: Sequence[int]) -> list[Size]:
    """For each wanted number the picture whose number is nearest, ascending, without repeats.

    Raises:
        LostattnError: the processor cannot tell, or makes no number within 5 % of a wanted one (and says which it makes).
    """
    return choose(lambda sizes: count(folder, sizes), wanted)


def video_sizes(folder: Path, wanted: Sequence[int]) -> list[Size]:
    """The same for videos of `FRAMES` frames."""
    return choose(lambda sizes: count(folder, sizes, FRAMES), wanted, FRAMES)


def fitting_sizes(folder: Path, wanted: Sequence[int], longest: int | None) -> list[Size]:
    """Those of the wanted numbers that the processor can make and that fit into `longest`; else the largest picture."""
    results = []
    for number in wanted:
        try:
            (size,) = picture_sizes(folder, [number])
        except LostattnError:
            continue
        if longest is None or size.visual <= longest:
            results.append(size)
    return results or [_largest(folder, longest)]


def _largest(folder: Path, longest: int | None) -> Size:
    sizes = [(side, side) for side in TILES]
    made = [Size(w, h, n) for (w, h), n in zip(sizes, count(folder, sizes), strict=True)]
    return max((s for s in made if longest is None or s.visual <= longest), key=lambda s: (s.visual, -s.width))


def choose(counts: Any, wanted: Sequence[int], frames: int = 1) -> list[Size]:
    """The same with `counts`, a function from (width, height) pairs to numbers of visual tokens."""
    what = "picture" if frames == 1 else "video"
    out: dict[int, Size] = {}
    for number in sorted(set(wanted)):
        sizes = _candidates(number // max(frames // STEP, 1))
        made = [Size(w, h, n, frames) for (w, h), n in zip(sizes, counts(sizes), strict=True)]
        best = min(made, key=lambda s: (abs(s.visual - number), s.height / s.width, s.width % 28, s.width))
        if abs(best.visual - number) > FAR * number:
            largest = max(made, key=lambda s: s.visual).visual
            raise LostattnError(
                f"the model's processor makes no {number} visual tokens of one {what}: the nearest is {best.visual}, the most "
                f"that was seen {largest}; choose others with --visual-tokens"
            )
        out[best.visual] = best
    return list(out.values())


def _candidates(number: int) -> list[tuple[int, int]]:
    """(width, height), never wider than high, nor more than twice as high as wide."""
    sizes = [(side, side) for side in TILES]
    for unit in UNITS:
        for across in range(1, int(number**0.5) + 2):
            for down in {number // across, -(-number // across)}:
                if across <= down <= 2 * across:
                    sizes.append((unit * across, unit * down))
    return sizes


def count(folder: Path, sizes: Sequence[tuple[int, int]], frames: int = 1) -> list[int]:
    """Visual tokens of pictures of these (width, height), or of videos of so many frames, by the folder's processor, without
    making them.
    """
    processor, what = load_processor(folder), "picture" if frames == 1 else "video"
    try:
        if frames > 1:
            result = processor._get_num_multimodal_tokens(video_sizes=[(frames, h, w) for w, h in sizes])
            return [int(n) for n in result["num_video_tokens"]]
        result = processor._get_num_multimodal_tokens(image_sizes=[(h, w) for w, h in sizes])
        return [int(n) for n in result["num_image_tokens"]]
    except Exception as error:  # other processors have no such method, or stumble over the sizes
        raise LostattnError(
            f"the processor in {folder} cannot tell how many visual tokens a {what} has ({cause(error)}): update transformers"
        ) from error


def load_processor(folder: Path) -> Any:
    """AutoProcessor of a folder, never running code from it. LostattnError if it cannot be loaded."""
    from ...patches.torchvision_ops import make_torchvision_importable

    make_torchvision_importable()
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever transformers raises about missing files and libraries
        raise LostattnError(
            f"the folder {folder.name} has no usable processor ({cause(error)}): 'lostattn doctor' tells what is missing"
        ) from error
