"""The untrained parts of the demo model: digits file, tokenizer, processor, chat template, configuration, weights.

Everything is a small but real member of the Qwen2.5-VL family: whatever loads Qwen2.5-VL loads this.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ...patches.torchvision_ops import make_torchvision_importable
from .digits import TAUGHT, TOKEN, Draw, ask, draw_scene

make_torchvision_importable()  # before the classes below, which import torchvision

from transformers import (  # noqa: E402
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO)
ANSWERS = ("yes", "no", "A", "B", "C", "D", *"0123456789")
MAX_TOKENS = 256  # visual tokens of one image; larger images are scaled down

# Words of the system prompts seen in training: the demo should not fall silent when somebody greets it.
_FILLER_TEXT = (
    "You are a helpful assistant that answers questions about the image with one word only Please look at it carefully "
    "and be brief Answer yes or no just letter digits The user asks what is shown Do not explain your short visual "
    "language model Give final answer directly"
)
FILLER = _FILLER_TEXT.split()

CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- elif message['content'] %}
        {%- for content in message['content'] %}
            {%- if content is string %}
                {{- content }}
            {%- elif content['type'] in ['image', 'image_url'] or 'image' in content or 'image_url' in content %}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- elif content['type'] in ['video', 'video_url'] or 'video' in content or 'video_url' in content %}
                {{- '<|vision_start|><|video_pad|><|vision_end|>' }}
            {%- elif 'text' in content %}
                {{- content['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def write_digits(path: Path) -> None:
    """Write scikit-learn's digits as images uint8 (1797, 8, 8), values 0..16, and labels uint8 (1797,)."""
    from sklearn.datasets import load_digits  # needed to make the file, never to use it

    data = load_digits()
    tensors = {"images": data.images.astype(np.uint8), "labels": data.target.astype(np.uint8)}
    metadata = {
        "source": "UCI Optical Recognition of Handwritten Digits, test set, as in scikit-learn's load_digits",
        "authors": "E. Alpaydin, C. Kaynak (1998), https://doi.org/10.24432/C50P49",
        "licence": "CC BY 4.0",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)


def filler_sentence(draw: Draw) -> str:
    """A sentence of three to eight random words: a system prompt that says nothing."""
    return " ".join(draw.one(FILLER) for _ in range(draw.between(3, 8))) + "."


def _corpus() -> list[str]:
    """The texts that the tokenizer learns its words from."""
    draw = Draw(0)
    scenes = [draw_scene(draw, 2, 3, "train") for _ in range(500)]
    questions = [asked.question for kind in TAUGHT for scene in scenes if (asked := ask(draw, scene, kind))]
    roles = ["system\n", "user\n", "assistant\n"] * 100
    words = [word + ending for word in FILLER for ending in ("", ".")] * 20
    spaced = [" " + word for word in FILLER] * 20
    return questions + roles + list(ANSWERS) * 100 + words + spaced


def build_tokenizer() -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer: Qwen's rules, a vocabulary of the demo's words, and single bytes for all else."""
    reference = Qwen2Tokenizer()  # for its normaliser and its splitting of text into words
    learner = Tokenizer(models.BPE())
    learner.normalizer = reference.backend_tokenizer.normalizer
    learner.pre_tokenizer = reference.backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1024, min_frequency=20, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    learner.train_from_iterator(_corpus(), trainer)
    vocab, merges = _vocab_and_merges(learner.to_str())
    return Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[token for token in SPECIAL_TOKENS if token not in (PAD, END)],
        model_max_length=4096,
    )


def _vocab_and_merges(tokenizer_json: str) -> tuple[dict[str, int], Any]:
    """The two tables of a BPE model, out of its JSON form: token -> id, and the pairs to merge in their order."""
    model = json.loads(tokenizer_json)["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def build_processor() -> Qwen2_5_VLProcessor:
    """Tokenizer, image and video processor, chat template. An image of r x c cells becomes r * c tokens, exactly."""
    size = {"shortest_edge": TOKEN * TOKEN, "longest_edge": MAX_TOKENS * TOKEN * TOKEN}  # in pixels of the whole image
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        tokenizer=build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(
            size=dict(size), cap_pixels_per_frame=True, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        chat_template=CHAT_TEMPLATE,
    )


def build_config(processor: Qwen2_5_VLProcessor) -> Qwen2_5_VLConfig:
    """Eight decoder layers of 4 query and 2 key/value heads; a vision tower that sees one visual token at a time."""
    tokenizer = processor.tokenizer
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    text = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": 128,
        "intermediate_size": 288,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.08,  # with the usual 0.02 a model this narrow does not begin to learn
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e3, "mrope_section": [1, 3, 12]},
        "bos_token_id": ids[PAD],
        "eos_token_id": ids[END],
        "pad_token_id": ids[PAD],
    }
    vision = {
        "depth": 1,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": 128,
        "patch_size": TOKEN // 2,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": TOKEN,
        "fullatt_block_indexes": [],
        "initializer_range": 0.08,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids[IMAGE],
        video_token_id=ids[VIDEO],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=False,
    )


def build_model(config: Qwen2_5_VLConfig) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained model that generates greedily until `<|im_end|>`. The caller sets torch's seed."""
    model = Qwen2_5_VLForConditionalGeneration(config)
    text = model.model.language_model.config
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id, max_new_tokens=16
    )
    return model
