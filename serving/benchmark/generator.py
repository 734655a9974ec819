"""vLLM's own serving benchmark as a process that stays: one load a line on standard input, one result a line back.

Run as a script, so that nothing but vLLM is imported, and importing vLLM is paid once. A line in is a JSON list of the
benchmark's arguments, a line out a JSON object: its result, or `{"error": ...}`. All other output goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

KEPT = (
    "completed",
    "duration",
    "request_throughput",
    "output_throughput",
    "total_output_tokens",
    "input_lens",
    "output_lens",
    "ttfts",
    "itls",
    "start_times",
    "errors",
    "median_ttft_ms",
    "p99_ttft_ms",
    "median_tpot_ms",
    "p99_tpot_ms",
    "median_itl_ms",
    "p99_itl_ms",
)


def load(arguments: list[str]) -> dict[str, Any]:
    """Put one load on a server; what vLLM measured."""
    from vllm.benchmarks.serve import add_cli_args, main
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    result = main(parser.parse_args(arguments))
    return {key: result.get(key) for key in KEPT}


def serve() -> None:
    """Read loads until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # vLLM prints its tables
    for line in sys.stdin:
        try:
            results = load(json.loads(line))
        except (Exception, SystemExit) as error:
            results = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(results) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
