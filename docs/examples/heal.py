"""Heal a patched model: fine-tune the rest of it for a few hundred steps, so that it learns to live with the prior.

python docs/examples/heal.py [MODEL [DATA [LAYERS [STEPS]]]]

The decoder gets LoRA adapters (peft) while the plan is on, and learns the original's next-token distributions on the
original's own answers. The adapters are then merged into the weights, and the result is patched like any other checkpoint:
out/patched and out/healed differ in their weights alone. DATA: a file of questions, or digits:1024@5 for the demo's; other
ones than those you judge by. Needs `pip install peft`.
"""

import random
import sys
from pathlib import Path

import lostattn
import torch
from lostattn.surgery.data import find_place, read_examples
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

given = ("surgery/demo/model", "digits:1024@5", "1-3", "300")
model, data, layers, steps = (*sys.argv[1:], *given[len(sys.argv) - 1 :])
BATCH, RATE, MAX_NEW_TOKENS = 8, 2e-3, 16
torch.manual_seed(0)
random.seed(0)

out = Path("out")
options = lostattn.PatchSpec(mode="patch_complexity", layers=layers, heads="all")
plan = lostattn.patch(model, out / "patched", options, force=True)

processor = AutoProcessor.from_pretrained(model)
teacher = AutoModelForImageTextToText.from_pretrained(model, dtype="float32").requires_grad_(False)
student = AutoModelForImageTextToText.from_pretrained(model, dtype="float32")
examples = read_examples(find_place(data))


def lesson(example) -> tuple[dict, int, torch.Tensor]:
    """Inputs with the original's answer, its length, and the original's log probabilities of its tokens."""
    content = [{"type": "image", "image": example.open()}, {"type": "text", "text": example.question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = teacher.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    length = ids.shape[1] - inputs["input_ids"].shape[1]
    more = ids.shape[1] - 1 - inputs["input_ids"].shape[1]
    inputs["input_ids"] = ids[:, :-1]
    for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in inputs:
            inputs[name] = torch.nn.functional.pad(inputs[name], (0, more), value=value)
    return inputs, length, answer_of(teacher, inputs, length).detach()


def answer_of(of, inputs: dict, length: int) -> torch.Tensor:
    return of(**inputs, use_cache=False, logits_to_keep=length).logits[0].log_softmax(-1)


target = r".*language_model\.layers\.\d+\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
adapted = get_peft_model(student, LoraConfig(r=16, lora_alpha=32, target_modules=target))
adam = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=RATE)
with lostattn.applied(student, plan):
    for step in range(1, int(steps) + 1):
        total = 0.0
        for example in random.sample(examples, min(BATCH, len(examples))):
            inputs, length, truth = lesson(example)
            found = answer_of(student, inputs, length)
            loss = torch.nn.functional.kl_div(found, truth, reduction="sum", log_target=True) / length / BATCH
            loss.backward()
            total += loss.item()
        for group in adam.param_groups:
            group["lr"] = RATE * min(1, step / 20) * (1 - (step - 1) / int(steps))
        adam.step()
        adam.zero_grad()
        if step % 20 == 0 or step == int(steps):
            print(f"step {step}: KL {total:.4f} nats", flush=True)

adapted.merge_and_unload().save_pretrained(out / "healed-weights")
processor.save_pretrained(out / "healed-weights")
lostattn.patch(out / "healed-weights", out / "healed", options, force=True)
print("wrote out/patched and out/healed; compare them with the original:")
print(f"  lostattn eval {model} out/patched out/healed --data digits:1000 --out out/healing")
print("  lostattn serve out/healed")
