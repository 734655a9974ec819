"""Whether vLLM computes what transformers computes: same prompts, same pictures and videos, token by token."""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..patches.errors import LostattnError
from ..patches.family import FAMILIES
from ..serving.cause import cause
from ..serving.client import Answer, Client, Turn
from ..serving.disk import read_json
from ..serving.engine.versions import check_served, check_videos
from ..serving.progress import bar_of
from ..serving.reading.videos import VideoFile
from ..serving.safety import cpu_defaults, names
from ..serving.server import Server
from .chat import Chat
from .data import read_examples
from .processing import load_processor
from .serve import check_plugin, checked_plan

# largest difference of log-probabilities that rounding explains, by dtype
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
TOP = 5
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """One conversation, named for the table."""

    name: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Result:
    """One case compared.

    Attributes:
        visual: image and video tokens in the prompt.
        tokens: greedy tokens of vLLM that were compared.
        equal: how many of them transformers chooses too, given those before them.
        difference: largest difference of a log-probability among vLLM's top tokens.
        ok: all tokens equal but for ties within the tolerance, and the difference within it.
    """

    name: str
    prompt: int
    visual: int
    tokens: int
    equal: int
    difference: float
    ok: bool


def builtin_cases() -> list[Case]:
    """Pictures of several shapes, two and three pictures, text alone, two turns."""

    def user(text: str, *sizes: tuple[int, int]) -> Turn:
        return Turn("user", text, tuple(_picture(w, h) for w, h in sizes))

    what, count = "What is in the image?", "What is the difference between the images?"
    return [
        Case("square picture", (user(what, (224, 224)),)),
        Case("wide picture", (user(what, (280, 56)),)),
        Case("tall picture", (user(what, (60, 211)),)),
        Case("tiny picture", (user(what, (29, 31)),)),
        Case("two pictures", (user(count, (112, 112), (168, 84)),)),
        Case("three pictures", (user(count, (56, 56), (56, 140), (84, 84)),)),
        Case("text alone", (user("Is there a 7 in the image?"),)),
        Case(
            "two turns",
            (
                user("Is there a 7 in the image?", (112, 84)),
                Turn("assistant", "no"),
                user("And in this one?", (84, 112)),
            ),
        ),
        Case(
            "picture, then text", (user("Name a color.", (112, 112)), Turn("assistant", "red"), user("Name another."))
        ),
    ]


def video_cases(both: bool = True) -> list[Case]:
    """Videos of several lengths and shapes, and a second question about one of them.

    Args:
        both: also a picture beside a video.

    Raises:
        LostattnError: PyAV, which writes their files, is missing.
    """

    def user(text: str, *videos: bytes, images: tuple[Image.Image, ...] = ()) -> Turn:
        return Turn("user", text, images, videos)

    what, short, wide = "What happens in the video?", _video(4, 112, 84), _video(12, 224, 56)
    cases = [
        Case("short video", (user(what, short),)),
        Case("wide video", (user(what, wide),)),
        Case("same video, other question", (user("How many objects are there?", wide),)),
        Case("video, then text", (user("Name a color.", short), Turn("assistant", "red"), user("Name another."))),
    ]
    return cases + [Case("picture and video", (user(what, short, images=(_picture(84, 112),)),))] * both


def tells_apart(folder: Path) -> bool:
    """Whether a prompt of this model may hold pictures and videos: not where transformers has one token for both (GLM-V)."""
    name = str(read_json(folder / "config.json", "config.json").get("model_type")).removeprefix("sap_")
    family = FAMILIES.get(name)
    return family is None or family.videos is None or family.videos.token != "image_token_id"


def data_cases(data: str | Path, limit: int | None) -> list[Case]:
    """The rows of question-answer data, as one turn each. LostattnError if one of them is about a video."""
    examples = read_examples(data, limit)
    for one in examples:
        if isinstance(one.image, VideoFile):
            raise LostattnError(
                f"row {one.row} is about a video: conform takes built-in ones, with --videos and no --data"
            )
    return [Case(f"row {e.row}", (Turn("user", e.question, (e.open(),)),)) for e in examples]


def conform(
    folder: Path,
    cases: Sequence[Case],
    max_tokens: int = 24,
    dtype: str = "float32",
    device: str = "cpu",
    options: Sequence[str] = (),
) -> list[Result]:
    """Answer the cases with vLLM, then let transformers judge every token of the answers.

    Args:
        device: where transformers runs; vLLM has been stopped by then.
        options: further vLLM options.

    Raises:
        LostattnError: either engine cannot load the model, or they do not see the same prompt tokens.
    """
    plan, videos = checked_plan(folder), any(turn.videos for case in cases for turn in case.turns)
    if plan is not None:
        check_plugin()
        check_served(plan.family)
        if videos:
            check_videos(plan.family)
    processor = load_processor(folder)
    inputs = [_encode(processor, case) for case in cases]
    logger.info(f"vLLM answers {len(cases)} prompts")
    answers = _ask_vllm(folder, cases, max_tokens, dtype, _server_options(cases, inputs, max_tokens, options))
    for case, one, answer in zip(cases, inputs, answers, strict=True):
        _refuse_other_prompt(case, one["input_ids"][0].tolist(), answer.prompt)
    logger.info("transformers answers")
    chat = Chat.load(folder, dtype, device)
    bar, judged = bar_of("prompts", len(cases)), list[Result]()
    for case, one, answer in zip(cases, inputs, answers, strict=True):
        judged.append(_judge(chat, case, one, answer, TOLERANCE[dtype]))
        if bar is not None:
            bar(len(judged))
    return judged


def _server_options(cases: Sequence[Case], inputs: Sequence[Any], max_tokens: int, given: Sequence[str]) -> list[str]:
    images, videos = (
        max(sum(len(getattr(turn, what)) for turn in case.turns) for case in cases) for what in ("images", "videos")
    )
    length = max(one["input_ids"].shape[1] for one in inputs) + max_tokens + 32
    # neutral sampling defaults: a repetition penalty of the model's own would change what is greedy
    options = ["--enforce-eager", "--generation-config", "vllm"]
    if not names(given, "--limit-mm-per-prompt"):
        options += ["--limit-mm-per-prompt", f'{{"image": {max(images, 1)}, "video": {videos}}}']
    if not names(given, "--max-model-len"):
        options += ["--max-model-len", str(max(length, 1024))]
    return [*options, *given]


def _ask_vllm(folder: Path, cases: Sequence[Case], max_tokens: int, dtype: str, options: list[str]) -> list[Answer]:
    env = cpu_defaults(folder, options).env
    with Server(folder, options=["--dtype", dtype, *options], env=env) as server:
        client = Client(server.url, server.name)
        return [client.ask([t.to_openai() for t in case.turns], max_tokens, top=TOP, ignore_eos=True) for case in cases]


def _encode(processor: Any, case: Case) -> dict[str, Any]:
    turns = [turn.to_template() for turn in case.turns]
    media: dict[str, Any] = {"images": [image for turn in case.turns for image in turn.images] or None}
    try:
        if videos := [video for turn in case.turns for video in turn.videos]:
            media |= _decoded(processor, videos)
        text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return dict(processor(text=[text], return_tensors="pt", **media))
    except Exception as error:  # processors raise whatever they stumble over
        raise LostattnError(
            f"{case.name}: the model's processor cannot use it ({cause(error)}): leave this row or picture out"
        ) from error


def _decoded(processor: Any, videos: Sequence[bytes]) -> dict[str, Any]:
    """What a processor is given of videos: the frames that vLLM takes from them."""
    from ..serving.video_media import frames_as_served

    results = [frames_as_served(video, type(processor.video_processor).__name__) for video in videos]
    stated = [{k: v for k, v in metadata.items() if k != "do_sample_frames"} for _, metadata in results]
    return {"videos": [frames for frames, _ in results], "video_metadata": stated, "do_sample_frames": False}


def _refuse_other_prompt(case: Case, ours: list[int], theirs: list[int]) -> None:
    if ours == theirs:
        return
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    raise LostattnError(
        f"{case.name}: the prompts differ, so nothing can be compared: {len(ours)} tokens in transformers, {len(theirs)} in "
        f"vLLM, first different at {place}; give both the same chat template and image processor settings"
    )


def _judge(chat: Chat, case: Case, inputs: dict[str, Any], answer: Answer, tolerance: float) -> Result:
    chosen = [step.token for step in answer.steps]
    ours = _forced_logprobs(chat, inputs, chosen) if chosen else ()
    equal, ties, difference = 0, 0, 0.0
    for step, row in zip(answer.steps, ours, strict=True):
        best = int(row.argmax())
        equal += best == step.token
        ties += best != step.token and float(row[best] - row[step.token]) <= tolerance
        results = [abs(float(row[token]) - value) for token, value in step.top.items()]
        difference = max([difference, *results])
    ids, config = inputs["input_ids"][0], chat.model.config
    seen = {getattr(config, f"{what}_token_{form}", -1) for what in ("image", "video") for form in ("id", "index")}
    ok = bool(chosen) and equal + ties == len(chosen) and difference <= tolerance
    return Result(case.name, len(ids), sum(int(token) in seen for token in ids), len(chosen), equal, difference, ok)


@torch.no_grad()
def _forced_logprobs(chat: Chat, inputs: dict[str, Any], tokens: list[int]) -> torch.Tensor:
    """Log-probabilities (len(tokens), vocabulary), float64, of every step of an answer that is prescribed.

    Step by step through `generate`, as a real answer is made: plans treat prompt rows and generated rows differently.
    """

    def force(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = ids.shape[1] - inputs["input_ids"].shape[1]
        return torch.full_like(scores, -torch.inf).index_fill_(
            1, torch.tensor([tokens[step]], device=scores.device), 0.0
        )

    moved = {k: v.to(chat.model.device) for k, v in inputs.items()}
    out = chat.model.generate(
        **moved,
        max_new_tokens=len(tokens),
        min_new_tokens=len(tokens),
        eos_token_id=None,
        do_sample=False,
        logits_processor=[force],
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.log_softmax(torch.cat(out.logits).double().cpu(), dim=-1)


def _video(frames: int, width: int, height: int) -> bytes:
    """A file of moving color ramps, two frames a second."""
    try:
        import av
    except ImportError:
        raise LostattnError("the built-in videos are written by PyAV: pip install 'lostattn[video]'") from None
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        whole = _picture(width + 8 * frames, height)
        for i in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(whole.crop((8 * i, 0, 8 * i + width, height)))))
        container.mux(stream.encode())
    return file.getvalue()


def _picture(width: int, height: int) -> Image.Image:
    """Color ramps with noise, the same on every machine."""
    noise = random.Random(width * 10007 + height)
    pixels = bytes(
        min(255, int(value * 0.8) + int(noise.random() * 50))
        for y in range(height)
        for x in range(width)
        for value in (255 * x // width, 255 * y // height, 255 * ((x // 14 + y // 14) % 2))
    )
    return Image.frombytes("RGB", (width, height), pixels)
