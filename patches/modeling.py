"""The half of a patched model with head: it builds the patched model, loads, saves, and generates."""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import torch

from .arguments import cache_among, rename_cache
from .attention import NAME
from .call import PathSettings
from .errors import LostattnError
from .family import get_family
from .inner import _DRAFTED_FOR, KINDS_OF_PIXELS, SLOTS
from .install import install, path_for
from .mode import get_mode
from .plan import Plan
from .saving import auto_map, complete_folder, part_with_links
from .selfcheck import prove
from .tap import VISION_NAME


class SapGeneration:
    """Mixed into the model with head (`...ForConditionalGeneration`)."""

    inner_class: ClassVar[type]
    _can_compile_fullgraph = False  # layouts are read on the host
    sap_slots: ClassVar[dict[str, ContextVar]] = SLOTS
    sap_plan: Plan
    sap_settings: PathSettings

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        plan = Plan.from_json(getattr(config, "sap", None))
        get_family(plan.family).check(config)
        install(self, plan)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers. On a version newer than the newest tested the architecture proves itself first.

        Raises:
            LostattnError: the self-check fails; see `selfcheck`.
        """
        config = kwargs.get("config")
        if isinstance(config, cls.config_class):  # type: ignore[attr-defined]  # before the weights are read, where that is possible
            prove(config, Plan.from_json(getattr(config, "sap", None)))
        loaded = super().from_pretrained(*args, **kwargs)  # type: ignore[misc]
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        prove(model.config, model.sap_plan)
        return loaded

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers, and all else that a patched folder needs: code, processor, card and record.

        Raises:
            LostattnError: `push_to_hub` was asked for, which would send the folder before it is whole.
        """
        plain = super().save_pretrained  # type: ignore[misc]
        asked = inspect.signature(plain).bind(save_directory, *args, **kwargs).arguments
        if asked.get("push_to_hub"):
            raise LostattnError("save the patched model without push_to_hub, then send the folder with 'lostattn push'")
        adapter = getattr(self, "_hf_peft_config_loaded", False)  # then only the adapter's weights are saved
        if asked.get("is_main_process", True) and not adapter:
            part_with_links(Path(save_directory))
            others = getattr(self.config, "auto_map", None) or {}  # type: ignore[attr-defined]
            self.config.auto_map = {**others, **auto_map(self.config_class, type(self))}  # type: ignore[attr-defined]
        plain(save_directory, *args, **kwargs)
        if asked.get("is_main_process", True) and not adapter:
            complete_folder(self, Path(save_directory))

    def set_attn_implementation(self, attn_implementation: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers, but the decoder always runs SAP attention: `eager` forces its eager form, `sdpa` frees it."""
        wanted = attn_implementation
        if isinstance(wanted, dict):  # a dict that names no text part leaves the path as it is
            wanted = wanted.get("text_config", wanted.get(""))
        if wanted is not None:
            self.sap_settings.force(path_for(wanted))
        vision = attn_implementation
        if isinstance(vision, dict):
            vision = vision.get("vision_config", vision.get("", "sdpa"))
        if get_mode(self.sap_plan.mode).listens:
            vision = VISION_NAME
        super().set_attn_implementation({"text_config": NAME, "vision_config": vision}, *args, **kwargs)  # type: ignore[misc]

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; a cache may be given as `cache` or as `past_key_values`, whatever the installed version."""
        cache_among(kwargs)
        return super().generate(*args, **rename_cache(type(self.model).__mro__[2].forward, kwargs))  # type: ignore[misc, attr-defined]

    def _prefill(
        self, input_ids: torch.Tensor, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kw: Any
    ) -> Any:
        encoded = model_kwargs.get("mm_encoder_outputs") or {}
        results = (encoded.get("image"), encoded.get("video"), *(model_kwargs.get(x) for x in KINDS_OF_PIXELS.values()))
        if generation_config.prefill_chunk_size is not None and any(x is not None for x in results):
            raise LostattnError(
                "prefill_chunk_size drops image and video features in transformers itself: leave it unset with images and videos"
            )
        return super()._prefill(input_ids, generation_config, model_kwargs, *args, **kw)  # type: ignore[misc]

    def _assisted_decoding(self, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.sap_plan.dynamic:
            raise LostattnError(
                "assisted decoding reads several tokens in one call, but this plan chooses heads anew for every token: "
                "use a plan with static heads, or decode without an assistant"
            )
        cache = cache_among(kwargs)
        if cache is not None:  # rows of drafted tokens are decode rows, not prompt rows
            cache.sap_prompt_length = input_ids.shape[1]
        token = _DRAFTED_FOR.set(id(self.model))  # type: ignore[attr-defined]
        try:
            return super()._assisted_decoding(input_ids, *args, **kwargs)  # type: ignore[misc]
        finally:
            _DRAFTED_FOR.reset(token)
            if cache is not None:
                del cache.sap_prompt_length
