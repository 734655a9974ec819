"""RID and MixIG of every layer's attention update (paper 3.2, 3.3) for one question.

python docs/examples/read_measures.py [MODEL [IMAGE [QUESTION]]]
"""

import sys

import torch
from lostattn.surgery.measures import factorize, mixing_information_gain, rid
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

states: dict[int, list[torch.Tensor]] = {}
for index, layer in enumerate(model.model.language_model.layers):
    layer.register_forward_pre_hook(
        lambda _, given, kwargs, i=index: states.setdefault(i, []).append(given[0][0]), with_kwargs=True
    )
    layer.self_attn.register_forward_hook(lambda _, __, out, i=index: states[i].append(out[0][0]))
with torch.no_grad():
    model(**inputs)

print("layer    RID  MixIG   of the attention update")
for index, (state, update) in states.items():
    before, after = state.double(), (state + update).double()
    change, mixing = rid(factorize(before), factorize(after)), mixing_information_gain(before, after)
    print(f"{index:5d}  {float(change):5.2f}  {float(mixing):5.2f}")
