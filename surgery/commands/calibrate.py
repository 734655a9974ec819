"""`lostattn calibrate`."""

from __future__ import annotations

from pathlib import Path

import click

from .base import Counter, json_option, print_json, print_table, say


@click.command()
@click.argument("src")
@click.option("--data", required=True, help="JSONL or dataset folder with image, question, answer; or 'builtin'.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Calibration file to be written.")
@click.option("--samples", type=click.IntRange(1), default=256, show_default=True, help="At most so many questions.")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--revision", help="Branch, tag or commit of a Hub id.")
@click.option("--allow-code", is_flag=True, help="Accept a source that brings Python files (never run).")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
def calibrate(
    src: str,
    data: str,
    out: Path,
    samples: int,
    dtype: str,
    device: str,
    revision: str | None,
    allow_code: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Measure every head of SRC on image-question pairs: both rankings, visual mass, log level.

    An interrupted run goes on where it stopped.

    \b
    Examples:
      lostattn calibrate ./qwen2.5-vl --data questions.jsonl --out qwen.calibration.json
      lostattn patch --calibration qwen.calibration.json ./qwen2.5-vl ./qwen2.5-vl-sap
    """
    from ...patches.errors import LostattnError
    from ...serving.data import read_examples
    from ...serving.disk import disk_errors, write_json
    from ...serving.shape import model_shape
    from ..calibrate import calibrate as measure
    from ..chat import Chat
    from ..checkpoint.source import resolve_source
    from ..demo.builtin import builtin_examples

    if out.is_dir():
        raise LostattnError(f"{out} is a folder: give the name of a file as --out")
    if out.exists() and not force:
        raise LostattnError(f"{out} exists: choose another --out, or add --force")
    if not out.parent.is_dir():
        raise LostattnError(f"the folder of {out} does not exist: make it first")
    source = resolve_source(src, revision, allow_code=allow_code)
    examples = builtin_examples(samples) if data == "builtin" else read_examples(data, samples)
    chat = Chat.load(source.path, dtype, device)
    partial = out.with_name(out.name + ".partial")
    name = "built-in pictures of handwritten digits" if data == "builtin" else Path(data).name
    found = measure(chat, model_shape(source.config).family, examples, name, partial, Counter("calibrating"))
    with disk_errors(f"cannot write {out}"):
        write_json(out, found.to_json())
        partial.unlink()
    if as_json:
        print_json(found.to_json())
        return
    mean = [sum(row) / len(row) for row in found.visual_mass]
    print_table(["layer", "visual mass (mean of heads)", "most visual head"], [
        [i, f"{100 * m:.1f} %", max(range(found.num_heads), key=lambda h: row[h])]
        for i, (m, row) in enumerate(zip(mean, found.visual_mass, strict=True))
    ])  # fmt: skip
    say(f"wrote {out}; next: lostattn patch --calibration {out} {src} OUT")
