"""Runs the blocks of the documents: one process imports torch once and forks for every command.

`python doc_server.py SOCKET` listens; `lostattn` and `python` in the folder of `shims` are small scripts that hand their
arguments, folder and streams to it. So a block is run by bash as it stands, and a command costs what it does, not its imports.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import socket
import sys
from pathlib import Path

SHIM = """#!{python} -IS
import json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
request = json.dumps([{program!r}, sys.argv[1:], os.getcwd(), sys.stdin.read() if {reads} and sys.argv[1:] == ["-"] else ""])
socket.send_fds(link, [request.encode()], [1, 2])
link.shutdown(socket.SHUT_WR)
sys.exit(int(link.recv(16) or b"70"))
"""


def shims(folder: Path, address: str) -> None:
    """Write the two commands."""
    for program in ("lostattn", "python"):
        script = folder / program
        text = SHIM.format(python=sys.executable, address=address, program=program, reads=program == "python")
        script.write_text(text, encoding="utf-8")
        script.chmod(0o755)


def serve(address: str) -> None:
    """Listen until killed."""
    import torch
    from lostattn.surgery.cli import main

    torch.set_num_threads(1)
    _import_what_commands_import()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    while True:
        link, _ = listener.accept()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork():
            link.close()
            continue
        listener.close()
        link.sendall(str(_answer(link, main)).encode())
        os._exit(0)


def _import_what_commands_import() -> None:
    """Here, once, and not in every forked process: the commands, the models' code, statistics and charts."""
    from lostattn.surgery.cli import COMMANDS

    ours = ["patches", *(f"surgery.{target.split(':')[0]}" for target in COMMANDS.values())]
    parts = [
        "calibrate",
        "chat",
        "evaluation.evaluate",
        "sweep.sweep",
        "diagnosis.diagnose",
        "tracing.trace",
        "efficient.search",
    ]
    for name in (*(f"lostattn.{name}" for name in ours), *(f"lostattn.surgery.{name}" for name in parts)):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in ("matplotlib.pyplot", "peft", "scipy.stats", "jinja2"):
        importlib.import_module(name)
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = str(Path(__file__).resolve().parents[1] / "surgery" / "demo" / "model")
    AutoModelForImageTextToText.from_pretrained(model)
    AutoProcessor.from_pretrained(model)


def _answer(link: socket.socket, main: object) -> int:
    """Run one request in this forked process; its exit code."""
    data, (out, err), _, _ = socket.recv_fds(link, 1 << 20, 2)
    while more := link.recv(1 << 20):
        data += more
    program, words, folder, text = json.loads(data)
    for number, stream in ((out, 1), (err, 2)):
        os.dup2(number, stream)
    os.chdir(folder)
    try:
        _run(program, words, text, main)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _run(program: str, words: list[str], text: str, main: object) -> None:
    sys.argv = [program, *words]
    if program == "lostattn":
        main.main(words, prog_name="lostattn")  # type: ignore[attr-defined]
    elif words == ["-"]:
        exec(compile(text, "<block>", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import conftest  # noqa: F401 - makes `import lostattn` mean this checkout

    serve(sys.argv[1])
