"""What makes a model class of vLLM obey a plan: one mixin for every family."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, ClassVar

import torch

from ....patches.errors import LostattnError
from ....patches.family import get_family
from ....patches.mode import get_mode
from ....patches.plan import Plan
from ....patches.tap import Tap
from ..attention.replace import AttentionReplacer
from ..attention.state import SapState
from ..internals import IntermediateTensors, get_pp_group
from ..versions import check_videos
from .encode import append_scores, item_scores, split_scores
from .vision import listening

PRIOR = "lostattn_prior"


# Where published checkpoints, and so vLLM, have one more step in the names of a tower.
_TOWER = re.compile(r"^(model\.)?vision_tower\.(?!vision_model\.)")


class SapVllm:
    """Mixed in front of a model class of vLLM: makes the prior where images and videos are encoded, hands it to the layers.

    Families say where the pixels of an encoder call are (`sap_pixels`), and which module the tap listens to (`sap_tower`).
    """

    sap_plan: Plan
    sap_state: SapState
    sap_kind: ClassVar[str] = "pixel_values"  # what vLLM calls an encoder call that brings pixels of images
    sap_video_kind: ClassVar[str] = "pixel_values_videos"

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        config = vllm_config.model_config.hf_config
        patched, config.model_type = config.model_type, self.sap_type(config)
        try:
            super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        finally:
            config.model_type = patched
        self.sap_plan = Plan.from_json(getattr(config, "sap", None))
        get_family(self.sap_plan.family).check(config)
        most, device = vllm_config.scheduler_config.max_num_batched_tokens, vllm_config.device_config.device
        self.sap_state = SapState(most, device, len(self.sap_plan.features))
        self._carry_prior_between_stages()
        if self.sap_plan.inert:
            return
        self.sap_prepare(vllm_config)
        replacer = AttentionReplacer(self.sap_plan, self.sap_state, vllm_config)
        for index, layer in enumerate(self.sap_layers()):
            if hasattr(layer, "self_attn"):  # else it belongs to another pipeline stage
                replacer.replace(index, layer.self_attn)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """As the plain model; the tower's weights also by the names that transformers 5 saves them under."""
        tower = getattr(self, "vision_tower", None)
        renamed = ((_TOWER.sub(r"\g<0>vision_model.", name), tensor) for name, tensor in weights)
        return super().load_weights(renamed if hasattr(tower, "vision_model") else weights)  # type: ignore[misc]

    @staticmethod
    def sap_type(config: Any) -> str:
        """The model type that vLLM's class sees while it builds itself: some choose their parts by it."""
        return str(config.model_type.removeprefix("sap_"))

    def sap_layers(self) -> Any:
        """The decoder's layers."""
        return self.language_model.model.layers  # type: ignore[attr-defined]

    def sap_prepare(self, vllm_config: Any) -> None:
        """Build what the plan's mode needs beside the model."""

    def sap_side_path(self) -> Any:
        """A context in which the vision tower also does what only the tap needs."""
        return nullcontext()

    def sap_pixels(self, given: Any) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Pixels of an encoder call of images or videos, bytes or normalised floats, and what else the family's functions ask
        for, by the names of transformers.
        """
        raise NotImplementedError

    def sap_inner(self) -> Any:
        """What the family's functions read of a model."""
        return SimpleNamespace(config=self.config)  # type: ignore[attr-defined]

    def sap_tap(self, pool: str) -> tuple[Any, int, Tap]:
        """The vision attention module to listen to, its heads on this rank, and the tap."""
        raise NotImplementedError

    def _process_image_input(self, image_input: Any) -> Any:
        return self._with_prior("image", image_input, super()._process_image_input)  # type: ignore[misc]

    def _process_video_input(self, video_input: Any) -> Any:
        return self._with_prior("video", video_input, super()._process_video_input)  # type: ignore[misc]

    def _with_prior(self, kind: str, given: Any, encode: Callable[[Any], Any]) -> Any:
        """Embeddings that the plain model makes of images or videos, with their scores behind them."""
        if self.sap_plan.inert:
            return encode(given)
        if kind == "video":
            check_videos(self.sap_plan.family)
        if given["type"] != (self.sap_kind if kind == "image" else self.sap_video_kind):
            raise LostattnError(
                f"a patched model needs the pixels of what it sees: send the {kind}, not its embeddings"
            )
        tap = None
        context: Any = nullcontext()
        if get_mode(self.sap_plan.mode).listens:
            module, heads, tap = self.sap_tap(self.sap_plan.options["pool"])
            context = listening(module, heads, tap)
        with context, self.sap_side_path():
            embeddings = list(encode(given))  # one tensor of equal images, or a list
        family, tokens = get_family(self.sap_plan.family).of(kind), [len(e) for e in embeddings]
        pixels, arguments = self.sap_pixels(given)
        inner = self.sap_inner()
        lengths = family.lengths(inner, pixels, family.arguments_of(arguments), tokens)
        scores = item_scores(self.sap_plan, inner, pixels, arguments, lengths, tap, kind)
        return append_scores(embeddings, torch.cat(scores).split(tokens))

    def embed_input_ids(
        self, input_ids: torch.Tensor, multimodal_embeddings: Any = None, *, is_multimodal: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As the plain model; the scores of images and videos go to the patched layers."""
        if self.sap_plan.inert:
            return super().embed_input_ids(  # type: ignore[misc]
                input_ids, multimodal_embeddings, is_multimodal=is_multimodal
            )
        state, count = self.sap_state, input_ids.shape[0]
        state.prior[:count].fill_(torch.nan)
        if multimodal_embeddings is not None and len(multimodal_embeddings) and is_multimodal is not None:
            pairs = [split_scores(e, state.columns) for e in multimodal_embeddings]
            result = torch.cat([p for _, p in pairs]).to(state.prior.device)
            visual = is_multimodal.to(result.device)
            state.prior[:count].masked_scatter_(visual, result[:, 0].contiguous())
            if state.columns > 1:
                state.features[:count].masked_scatter_(visual[:, None], result[:, 1:].contiguous())
            multimodal_embeddings = [e for e, _ in pairs]
        return super().embed_input_ids(  # type: ignore[misc]
            input_ids, multimodal_embeddings, is_multimodal=is_multimodal
        )

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> Any:
        """As the plain model; the prior travels on to the next pipeline stage."""
        if intermediate_tensors is not None and PRIOR in intermediate_tensors.tensors:
            prior = intermediate_tensors.tensors.pop(PRIOR)
            if not get_pp_group().is_first_rank:
                self.sap_state.put(0, prior)
        out = super().forward(  # type: ignore[misc]
            input_ids, positions, intermediate_tensors, inputs_embeds, **kwargs
        )
        if isinstance(out, IntermediateTensors):
            count = len(out.tensors["hidden_states"])
            out.tensors[PRIOR] = self.sap_state.get(count)
        return out

    def _carry_prior_between_stages(self) -> None:
        """Make room for the prior in what vLLM allocates for a pipeline stage."""
        plain, columns = getattr(self, "make_empty_intermediate_tensors", None), self.sap_state.columns
        if plain is None:  # vLLM runs this model in one stage only
            return

        def make(batch_size: int, dtype: torch.dtype, device: torch.device) -> Any:
            result = plain(batch_size, dtype, device)
            result.tensors[PRIOR] = torch.zeros(batch_size, columns, dtype=torch.float32, device=device)
            return result

        self.make_empty_intermediate_tensors = make

    def get_model_state_cls(self) -> Any:
        """Model runner V2's hook for the requests of a batch."""
        from ..attention.runner import SapModelState

        return SapModelState
