"""Serve a patched folder with vLLM and ask it with the openai client.

python docs/examples/serve_and_query.py [FOLDER [IMAGE [QUESTION]]]        FOLDER: as patch_and_ask.py writes it
"""

import base64
import subprocess
import sys
import time
from pathlib import Path

from openai import APIConnectionError, OpenAI

folder, image, question = (
    *sys.argv[1:],
    *("out/patched", "docs/examples/digits.png", "Is there a 5?")[len(sys.argv) - 1 :],
)

command = [sys.executable, "-m", "lostattn.surgery.cli", "serve", folder, "--port", "8011", "--name", "patched"]
server = subprocess.Popen([*command, "--", "--max-model-len", "2048", "--enforce-eager"])
client = OpenAI(base_url="http://127.0.0.1:8011/v1", api_key="none")
try:
    while server.poll() is None:
        try:
            client.models.list()
            break
        except APIConnectionError:
            time.sleep(2)
    url = "data:image/png;base64," + base64.b64encode(Path(image).read_bytes()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    found = client.chat.completions.create(model="patched", messages=messages, max_tokens=16, temperature=0)
    print("answer:", found.choices[0].message.content)
finally:
    server.terminate()
    server.wait()
