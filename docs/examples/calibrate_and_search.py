"""Measure which KV groups of a model can go on your questions, and patch those that keep 99 % of its answers.

python docs/examples/calibrate_and_search.py [MODEL [DATA [DTYPE]]]

DATA: a file of questions, or digits:64 for the demo's. DTYPE: float32 is the fastest on CPUs without bfloat16; auto on a GPU.
"""

import subprocess
import sys
from pathlib import Path

model, data, dtype = (*sys.argv[1:], *("surgery/demo/model", "digits:64", "float32")[len(sys.argv) - 1 :])


def lostattn(*words: str) -> None:
    print("$ lostattn", *words, flush=True)
    subprocess.run([sys.executable, "-m", "lostattn.surgery.cli", *words], check=True)


Path("out").mkdir(exist_ok=True)
lostattn("calibrate", model, "--data", data, "--dtype", dtype, "--frontier", "--out", "out/calibration.json")
lostattn("frontier", "out/calibration.json")
choice = ["--calibration", "out/calibration.json", "--keep-agreement", "0.99"]
lostattn("patch", "--preset", "efficient", *choice, "--force", model, "out/efficient")
