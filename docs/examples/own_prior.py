"""Give a patched model a prior of your own: here, attention to the middle of the picture.

python docs/examples/own_prior.py [MODEL [IMAGE [QUESTION]]]
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

# one number for each visual token, in the order in which the model sees them: rows from the top, here for Qwen's grid
_, height, width = inputs["image_grid_thw"][0].tolist()
rows, columns = height // 2, width // 2
row, column = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
middle = torch.exp(-2 * (row**2 + column**2)).flatten()

last = model.config.get_text_config().num_hidden_layers - 1
plan = lostattn.plan(model_id, layers=f"1-{last}", heads="all", scores="log")
with lostattn.applied(model, plan), lostattn.use_prior(model, [middle]), torch.no_grad():
    tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)
print(processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0])
