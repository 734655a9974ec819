"""Patch a model in memory, ask it and the original the same question, and write the patched checkpoint.

python docs/examples/patch_and_ask.py [MODEL [IMAGE [QUESTION]]]
"""

import sys

import lostattn
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model_id, image, question = (
    *sys.argv[1:],
    *("surgery/demo/model", "docs/examples/digits.png", "Is there a 5?")[len(sys.argv) - 1 :],
)

model = AutoModelForImageTextToText.from_pretrained(model_id, dtype="auto").eval()
processor = AutoProcessor.from_pretrained(model_id)
message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
prompt = processor.apply_chat_template([message], add_generation_prompt=True)
inputs = processor(text=[prompt], images=[Image.open(image).convert("RGB")], return_tensors="pt")


def answer() -> str:
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    return processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]


last = model.config.get_text_config().num_hidden_layers - 1
plan = lostattn.plan(model_id, layers=f"1-{last}", heads="all")
print("original:", answer())
with lostattn.applied(model, plan):
    print(f"layers 1-{last} patched:", answer())
print("original again:", answer())
lostattn.patch(model_id, "out/patched", layers=f"1-{last}", heads="all", force=True)
print("wrote out/patched; lostattn unpatch gives the original back")
