"""`lostattn ask`."""

from __future__ import annotations

import time

import click

from .base import json_option, print_json


@click.command()
@click.argument("folder")
@click.argument("question")
@click.option("--image", required=True, type=click.Path(), help="Picture file.")
@click.option("--boxes", type=click.Path(), help="JSON file [[x, y, width, height], ...] in pixels, for mode region.")
@click.option("--compare", metavar="BASE", help="Ask the plain checkpoint BASE too and print both answers.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=64, show_default=True, help="Longest answer.")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--attention", default="auto", show_default=True, help="Force a path: auto, closed, any_mask or eager.")
@json_option
def ask(
    folder: str,
    question: str,
    image: str,
    boxes: str | None,
    compare: str | None,
    max_new_tokens: int,
    dtype: str,
    device: str,
    attention: str,
    as_json: bool,
) -> None:
    """Ask the model in FOLDER (patched or plain) a QUESTION about a picture.

    \b
    Examples:
      lostattn ask ./qwen2.5-vl-sap --image cat.jpg "What animal is this?"
      lostattn ask ./qwen2.5-vl-sap --compare ./qwen2.5-vl --image cat.jpg "What animal is this?"
    """
    from ...serving.images import open_image
    from ..chat import Chat, is_patched
    from ..tracing.place import evidence

    picture = open_image(image)
    if compare:
        is_patched(compare)  # a wrong folder shall not be found out after minutes
    found = []
    for name in [folder, *([compare] if compare else [])]:
        chat = Chat.load(name, dtype, device, attention if name == folder else "auto")
        start = time.perf_counter()
        with evidence(chat, picture, boxes):
            answer = chat.answer(picture, question, max_new_tokens)
        paths = dict(chat.model.sap_settings.counts) if chat.patched else {}
        found.append(
            {
                "model": name,
                "patched": chat.patched,
                "answer": answer,
                "paths": paths,
                "seconds": time.perf_counter() - start,
            }
        )
    if as_json:
        print_json(found)
    elif compare is None:
        click.echo(found[0]["answer"])
    else:
        for one in found:
            click.echo(f"{one['model']} ({'patched' if one['patched'] else 'plain'}): {one['answer']}")
