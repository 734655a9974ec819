"""Run the cells below and write them, with what they print and draw, as docs/examples/look_inside.ipynb.

python docs/notebook.py             write the notebook
python docs/notebook.py --dry-run   run the cells and write nothing

No Jupyter is needed to write it; any can open and run it, from its folder.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent / "examples"
NOTEBOOK = EXAMPLES / "look_inside.ipynb"
CELLS = [
    """# Look inside a vision-language model

What do attention and the feed-forward network of every layer add to the stream of hidden states? Which parts of the picture
does the last token look at? And does the answer change if it may not look? The same as `read_measures.py`, with pictures.
The demo's model reads handwritten digits and needs no GPU; set `model_id` to a model of yours of the Qwen2.5-VL family and
everything below still runs.""",
    """import lostattn
import matplotlib.pyplot as plt
import torch
from lostattn.surgery.measures import mixing_information_gain, rid
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model_id, picture, question = "../../surgery/demo/model", "digits.png", "Is there a 7?"

model = AutoModelForImageTextToText.from_pretrained(model_id, dtype=torch.float32, attn_implementation="eager").eval()
processor = AutoProcessor.from_pretrained(model_id)
message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
prompt = processor.apply_chat_template([message], add_generation_prompt=True)
image = Image.open(picture).convert("RGB")
inputs = processor(text=[prompt], images=[image], return_tensors="pt")
visual = inputs["input_ids"][0] == model.config.image_token_id
print(f"{len(visual)} tokens, {int(visual.sum())} of them visual; {len(model.model.language_model.layers)} layers")""",
    """## RID and MixIG of every layer

RID asks how much an update adds that was not there; MixIG how much it rearranges what was. Both from the states before and
after each update, in float64 (`docs/explanation/paper.md` says what they are).""",
    """before, middle, after = {}, {}, {}


def watch(index, layer):
    def keep(states, where):
        where[index] = states.reshape(-1, states.shape[-1]).double()

    layer.register_forward_pre_hook(lambda _, given: keep(given[0], before))
    layer.self_attn.register_forward_hook(lambda _, __, out: keep(before[index] + out[0], middle))
    layer.register_forward_hook(lambda _, __, out: keep(out[0] if isinstance(out, tuple) else out, after))


for index, layer in enumerate(model.model.language_model.layers):
    watch(index, layer)
with torch.no_grad():
    attentions = model(**inputs, output_attentions=True).attentions

steps = {"attention": (before, middle), "feed-forward": (middle, after)}
fig, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for name, (old, new) in steps.items():
    axes[0].plot([float(rid(old[i], new[i])) for i in old], "o-", label=name)
    axes[1].plot([float(mixing_information_gain(old[i], new[i])) for i in old], "o-", label=name)
for ax, title in zip(axes, ("RID: what is new", "MixIG: what is rearranged (nats)"), strict=True):
    ax.set(title=title, xlabel="layer")
axes[0].legend()""",
    """## What the last token looks at

The share of its attention that each visual token gets, mean over the heads of a layer, laid over the picture.""",
    """_, height, width = inputs["image_grid_thw"][0].tolist()
rows, columns = height // 2, width // 2  # 2 x 2 patches make a visual token
fig, axes = plt.subplots(1, len(attentions), figsize=(2 * len(attentions), 2), layout="constrained")
for index, (ax, attention) in enumerate(zip(axes, attentions, strict=True)):
    seen = attention[0, :, -1].mean(0)[visual].reshape(rows, columns)
    ax.imshow(image, extent=(0, columns, rows, 0))
    ax.imshow(seen, extent=(0, columns, rows, 0), alpha=0.6, cmap="magma")
    ax.set(title=f"layer {index}: {float(seen.sum()):.0%}", xticks=[], yticks=[])""",
    """## Does it need to look?

A plan on the model in memory; after the block the model is bit for bit the original again. Each line patches all heads of
one layer with a prior that knows nothing about the picture, and shows how the probability of the answer's first token moves.""",
    """def first_token():
    with torch.no_grad():
        return model(**inputs).logits[0, -1].softmax(-1)


original = first_token()
best = int(original.argmax())
print(f"original: {processor.decode([best])!r} at {float(original[best]):.1%}")
for layer in range(len(attentions)):
    plan = lostattn.plan(model_id, mode="uniform", layers=[layer], heads="all")
    with lostattn.applied(model, plan):
        now = first_token()
    print(f"layer {layer} patched: {processor.decode([int(now.argmax())])!r}, that token at {float(now[best]):.1%}")
assert torch.equal(first_token(), original)""",
    """One question says little. `lostattn diagnose` measures RID and MixIG over many, with controls and intervals; `lostattn
trace` follows the attention through the layers; `lostattn calibrate --frontier` finds which heads can go together.""",
]


def run() -> dict[str, Any]:
    """All cells in order, in the folder of the examples; the notebook."""
    import matplotlib

    matplotlib.use("Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    here = os.getcwd()
    os.chdir(EXAMPLES)
    try:
        cells = [_cell(number, text, names) for number, text in enumerate(CELLS)]
    finally:
        os.chdir(here)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def is_prose(number: int) -> bool:
    """Whether a cell is text: those with a heading, and the last."""
    return CELLS[number].startswith("#") or number == len(CELLS) - 1


def _cell(number: int, text: str, names: dict[str, Any]) -> dict[str, Any]:
    cell = {"id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
    if is_prose(number):
        return {"cell_type": "markdown", **cell}
    return {"cell_type": "code", "execution_count": number, "outputs": _outputs(text, names), **cell}


def _outputs(text: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """What a cell prints and draws."""
    import matplotlib.pyplot as plt

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(text, "<cell>", "exec"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append(
            {"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(keepends=True)}
        )
    for figure in map(plt.figure, plt.get_fignums()):
        png = io.BytesIO()
        figure.savefig(png, dpi=70)
        picture = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": ["<Figure>"]}
        outputs.append({"output_type": "display_data", "data": picture, "metadata": {}})
    plt.close("all")
    return outputs


def main() -> None:
    """Write it, unless told not to."""
    notebook = run()
    if "--dry-run" not in sys.argv:
        NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
