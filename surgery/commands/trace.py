"""`lostattn trace`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .base import Counter, json_option, print_json, print_table, tell
from .checks import need_data, need_files, need_models, need_picture
from .choices import DTYPE
from .data_option import data_option


@click.command(short_help="Show which parts of a picture every layer connects.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--image", type=click.Path(), help="Picture file; with --question.")
@click.option("--video", type=click.Path(), help="Video file, instead of --image; boxes lie in pictures only.")
@click.option("--frames", type=click.IntRange(1, 2048), help="Taken out of --video, evenly spaced.  [default: 16]")
@click.option("--question", help="What to ask about the picture.")
@data_option("image, question, answer and boxes, instead of --image", default=None)
@click.option("--boxes", type=click.Path(), help="JSON file: [[x, y, width, height], ...] of the evidence, in pixels.")
@click.option("--coco", type=click.Path(), help="COCO instances file to take the boxes from; with --object.")
@click.option("--object", "name", help="Object category in COCO's words; with --data each row names its own object.")
@click.option("--threshold", type=float, default=0.1, show_default=True, help="Least attention of an edge.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for pictures, JSON and CSV.")
@click.option("--samples", type=click.IntRange(1), help="At most so many rows of --data.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=64, show_default=True, help="Longest answer.")
@click.option("--dtype", type=DTYPE, default="auto", show_default=True, help="Of the weights; auto: as stored.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--force", is_flag=True, help="Write over an earlier trace.")
@json_option
def trace(
    model: Path,
    image: str | None,
    video: str | None,
    frames: int | None,
    question: str | None,
    data: str | None,
    boxes: str | None,
    coco: str | None,
    name: str | None,
    out: Path,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Show which parts of a picture, or of a video's frames, every layer of MODEL (plain or patched) connects.

    With boxes it also tells how much of that touches the evidence.

    \b
    Examples:
      lostattn trace ./qwen2.5-vl --image cows.jpg --question "Is there a cow?" --boxes cows.json --out trace
      lostattn trace ./qwen2.5-vl --image COCO_val2014_000000000042.jpg --question "Is there a dog?" \\
          --coco instances_val2014.json --object dog --out trace
      lostattn trace ./qwen2.5-vl --data pope.jsonl --out trace
    """
    from ...patches.errors import LostattnError
    from ...serving.pages.charts import need_matplotlib

    if data is not None and (image or video or frames or question or boxes or name):
        raise LostattnError(
            "--data brings its own pictures, questions and boxes: leave --image, --video, --frames, --question, --boxes and "
            "--object out"
        )
    if data is None and not (bool(image) != bool(video) and question):
        raise LostattnError("give --image or --video with --question, or --data with rows that have all of it")
    if video and (boxes or coco):
        raise LostattnError("boxes of evidence lie in pictures, not in videos: leave --boxes and --coco out")
    if frames and not video:
        raise LostattnError("--frames belongs to --video: leave it out")
    if data is None and bool(coco) != bool(name):
        raise LostattnError("--coco and --object belong together: give the annotations and the name of the object")
    if boxes and coco:
        raise LostattnError("--boxes and --coco both say where the evidence is: give one of them")
    need_matplotlib()  # say that it is missing before the work, not after it
    need_models(model)
    need_data(data)
    need_picture(image)
    need_files(("--boxes", boxes), ("--coco", coco), ("--video", video))
    from ..tracing.files import make_folder

    make_folder(out, force)
    if data is not None:
        report = _many(model, data, coco, out, settings)
        print_json(report) if as_json else _print_groups(report)
    else:
        report = _one(model, image, (video, frames), str(question), (boxes, coco, name), out, settings)
        print_json(report) if as_json else _print_layers(report)
    tell(f"wrote {out}")


def _one(
    model: Path,
    image: str | None,
    video: tuple[str | None, int | None],
    question: str,
    evidence: tuple[str | None, str | None, str | None],
    out: Path,
    settings: Any,
) -> dict[str, Any]:
    """Trace one question and write everything about it."""
    from ...serving.reading.pictures import open_picture
    from ...serving.reading.videos import FRAMES, Clip, VideoFile
    from ..chat import Chat
    from ..tracing.boxes import Box, Coco, check_inside, read_boxes
    from ..tracing.files import write_trace
    from ..tracing.maps import prior_maps
    from ..tracing.sheet import contact_sheet, steps_of
    from ..tracing.trace import trace as trace_image

    picture: Any = open_picture(image) if image else VideoFile(str(video[0]), video[1] or FRAMES).open()
    file, coco, name = evidence
    boxes: list[Box] = read_boxes(file) if file else []
    if coco and name and image:
        boxes = Coco(coco).find(image, name, picture.size)
    check_inside(boxes, picture.size)
    chat = Chat.load(model, settings["dtype"], settings["device"])
    seen = trace_image(chat, picture, question, boxes, settings["threshold"], settings["max_new_tokens"])
    maps = prior_maps(chat, model, seen.inputs, seen.rectangles, boxes, picture.size)
    if isinstance(picture, Clip):
        picture = contact_sheet(picture, steps_of(seen.inputs))
    report = {
        **_head(model, chat, settings),
        **seen.to_json(),
        "prior_maps": list(maps.weights),
        "missing_maps": maps.missing,
    }
    write_trace(out, seen, maps, picture, model.resolve().name, report)
    for mode, why in maps.missing.items():
        tell(f"no map of mode {mode}: {why}")
    return report


def _many(model: Path, data: str, coco: str | None, out: Path, settings: Any) -> dict[str, Any]:
    """Trace every row and compare correct with incorrect answers."""
    from ...serving.disk import write_json
    from ..chat import Chat
    from ..tracing.boxes import Coco, read_cases
    from ..tracing.compare import compare, summarise
    from ..tracing.draw import draw_comparison
    from ..tracing.files import SampleTable

    cases = read_cases(data, settings["samples"], Coco(coco) if coco else None)
    chat = Chat.load(model, settings["dtype"], settings["device"])
    table = SampleTable(out / "samples.csv")
    samples = compare(chat, cases, settings["threshold"], settings["max_new_tokens"], Counter("tracing"), table.add)
    peak = max(s.tracing_mb for s in samples)
    report = {
        **_head(model, chat, settings),
        **summarise(samples),
        "threshold": settings["threshold"],
        "tracing_mb": peak,
    }
    draw_comparison(report, model.resolve().name, out / "comparison.png")
    write_json(out / "trace.json", report)
    return report


def _head(model: Path, chat: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """What a number has to carry: model, plan, versions, hardware."""
    from ...serving.hardware import hardware
    from ..checkpoint.provenance import versions

    plan = chat.model.sap_plan.to_json() if chat.patched else None
    dtype = str(chat.model.dtype).removeprefix("torch.")
    return {
        "model": model.resolve().name,
        "plan": plan,
        "dtype": dtype,
        "device": settings["device"],
        "versions": versions(),
        "hardware": hardware(),
    }


def _print_layers(report: dict[str, Any]) -> None:
    click.echo(f"answer: {report['answer']}")
    rows = [[x["layer"], x["edges"], x["edges_without_loops"], _percent(x.get("rho"))] for x in report["layers"]]
    print_table(["layer", "edges", "between two tokens", "rho"], rows)
    if report["boxes"]:
        share = report["key_tokens"] / report["visual_tokens"]
        click.echo(
            f"mean rho {_percent(report['mean_rho'])}; {_percent(share)} of the visual tokens lie in the key region"
        )
    memory = report["memory"]
    click.echo(
        f"{report['visual_tokens']} visual tokens: tracing took {memory['tracing_mb']} MB of memory, where all weights at once "
        f"would take {memory['all_layers_of_weights_mb']} MB"
    )


def _print_groups(report: dict[str, Any]) -> None:
    rows = []
    for name in ("correct", "incorrect"):
        group = report[name]
        rho = group["rho"] or {"mean": None, "low": None, "high": None}
        span = "-" if rho["low"] is None else f"{_percent(rho['low'])} to {_percent(rho['high'])}"
        share = _percent(group["key_share_of_tokens"])
        rows.append([name, group["n"], _percent(rho["mean"]), span, share, _percent(report["paper"][name])])
    print_table(["answers", "n", "mean rho", "95 % interval", "tokens in key region", "the paper"], rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
