"""Tracing one question about one picture or one video."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ...patches.errors import LostattnError
from ...patches.family import attentions_of
from ...patches.geometry import touched
from ...patches.mode import get_mode
from ...patches.supplied_regions import use_regions
from ...serving.reading.videos import Clip
from ..chat import Chat
from .boxes import Box, check_inside
from .graph import LayerGraph
from .memory import PeakMemory
from .place import fit_of, place_tokens
from .sheet import contact_sheet, place_on_sheet, steps_of
from .watch import Watch, watched


@dataclass(frozen=True)
class Trace:
    """What was seen while one question was read.

    Attributes:
        question, answer: texts.
        size: (width, height) of the picture; of a video, of the sheet of its frames (`sheet`).
        boxes: of the evidence, in pixels of the picture.
        threshold: least weight of an edge.
        inputs: what the model got.
        rectangles: (n, 4) what every visual token shows, fractions of the picture, NaN for line breaks.
        key: (n,) bool, tokens that show a part of a box.
        layers: graph of every decoder layer.
        memory: peak of the whole answer (encoder and decoder included), what tracing a layer took on top
            (`tracing_mb`), and what storing all weights would have taken.
    """

    question: str
    answer: str
    size: tuple[int, int]
    boxes: Sequence[Box]
    threshold: float
    inputs: dict[str, torch.Tensor]
    rectangles: torch.Tensor
    key: torch.Tensor
    layers: list[LayerGraph]
    memory: dict[str, Any]

    def ratios(self) -> list[float | None]:
        """rho of every layer; None without edges."""
        return [g.degree_ratio(self.key) for g in self.layers]

    def mean_ratio(self) -> float | None:
        """Mean of rho over the layers that have edges; None if none has."""
        results = [r for r in self.ratios() if r is not None]
        return sum(results) / len(results) if results else None

    def to_json(self) -> dict[str, Any]:
        """Everything but tensors; ratios only if there are boxes."""
        layers = [_layer_json(i, g, self.key, bool(self.boxes)) for i, g in enumerate(self.layers)]
        return {
            "question": self.question,
            "answer": self.answer,
            "picture": list(self.size),
            "boxes": [list(b) for b in self.boxes],
            "threshold": self.threshold,
            "visual_tokens": len(self.key),
            "tokens_without_pixels": int(self.rectangles[:, 0].isnan().sum()),
            "key_tokens": int(self.key.sum()),
            "mean_rho": self.mean_ratio() if self.boxes else None,
            "layers": layers,
            "memory": self.memory,
        }


def _layer_json(index: int, graph: LayerGraph, key: torch.Tensor, boxes: bool) -> dict[str, Any]:
    cross = graph.without_loops()
    results: dict[str, Any] = {"layer": index, "edges": graph.edges, "edges_without_loops": cross.edges}
    if boxes:
        results |= {
            "key_edges": int(graph.touches(key).sum()),
            "rho": graph.degree_ratio(key),
            "rho_without_loops": cross.degree_ratio(key),
        }
    return results


def trace(
    chat: Chat,
    image: Image.Image | Clip,
    question: str,
    boxes: Sequence[Box] = (),
    threshold: float = 0.1,
    max_new_tokens: int = 64,
) -> Trace:
    """Answer a question and note, layer by layer, which visual tokens the prompt's visual tokens attend to.

    No attention matrix is kept: weights of some query rows at a time (`watch.CHUNK_BYTES`) become edges at once.

    Args:
        boxes: (x, y, width, height) in pixels of the picture; without any there is no key region.
        threshold: at most 1 / threshold edges per token and layer.

    Raises:
        LostattnError: boxes outside of the picture, a threshold outside (0, 1], a model that needs boxes and has none.
    """
    if not 0 < threshold <= 1:
        raise LostattnError(f"the threshold is a share of attention, above 0 and at most 1, not {threshold}")
    if isinstance(image, Clip) and boxes:
        raise LostattnError("boxes of evidence lie in pictures, not in videos: leave them out")
    check_inside(boxes, image.size)
    size = image.size
    with PeakMemory(chat.model.device) as peak:
        inputs = chat.encode(image, question)
        if isinstance(image, Clip):
            rectangles = place_on_sheet(chat, inputs, image.size)
            size = contact_sheet(image, steps_of(inputs)).size
        else:
            rectangles = place_tokens(chat, inputs, image.size)
        watch = Watch(chat.visual(inputs), threshold)
        with _regions(chat, image, boxes), watched(chat.model, watch):
            answer = chat.generate(inputs, max_new_tokens)[0]
    text = chat.model.config.get_text_config()
    if sorted(watch.found) != sorted(attentions_of(chat.model.model)):
        raise LostattnError("the decoder's attention was not seen in every layer: its architecture is not supported")
    peak.include(watch.peaks)
    whole = 4 * text.num_attention_heads * len(watch.visual) ** 2
    memory = {
        **peak.report(),
        "tracing_mb": round(max(p.above for p in watch.peaks) / 2**20, 1),
        "largest_chunk_mb": round(watch.largest / 2**20, 1),
        "one_layer_of_weights_mb": round(whole / 2**20, 1),
        "all_layers_of_weights_mb": round(whole * text.num_hidden_layers / 2**20, 1),
    }
    key = touched(rectangles, boxes, size) if boxes else torch.zeros(len(rectangles), dtype=torch.bool)
    layers = [watch.found[i] for i in sorted(watch.found)]
    return Trace(question, answer, size, boxes, threshold, inputs, rectangles, key, layers, memory)


def _regions(chat: Chat, image: Image.Image | Clip, boxes: Sequence[Box]) -> Any:
    """What a model patched with mode `region` needs."""
    if not chat.patched or get_mode(chat.model.sap_plan.mode).needs != "regions":
        return nullcontext()
    if not boxes:
        raise LostattnError("this model was patched with mode 'region': give the boxes that it shall look at")
    return use_regions(chat.model, [boxes], [image.size], fit_of(chat))
