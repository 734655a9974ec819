"""What a vLLM log says about a server that did not start, as one sentence with the mend."""

from __future__ import annotations

import re

LAST_LINES = 400
LONGEST = 300

# the first pattern that is found in the last lines decides; {0} is its group, shortened
CAUSES = (
    (
        r"error: (unrecognized arguments: .+|argument .+|ambiguous option: .+)",
        "vLLM does not take an option ({0}): see its options with 'python -m vllm.entrypoints.openai.api_server --help'",
    ),
    (
        r"[Aa]ddress already in use",
        "the port is taken: choose another with --port, or end what listens there",
    ),
    (
        r"[Cc]annot assign requested address|Name or service not known|Temporary failure in name resolution",
        "the host is no address of this machine: use 127.0.0.1, or one of its own addresses",
    ),
    (
        r"((?:torch\.|CUDA )(?:cuda\.)?(?:OutOfMemoryError|out of memory).*)",
        "the GPU's memory does not suffice ({0}): use --gpu-memory-utilization, --max-model-len or a larger GPU",
    ),
    (
        r"((?:Free|Available) memory on (?:device|node) .*is less than desired.*)",
        "other processes hold too much memory ({0}): end them, or lower --gpu-memory-utilization",
    ),
    (
        r"(?:ValueError: )?(To serve at least one request with.*|No available memory for the cache blocks.*)",
        "the memory for the KV cache does not suffice ({0}): lower --max-model-len, or give it more "
        "(--gpu-memory-utilization; on a CPU the environment variable VLLM_CPU_KVCACHE_SPACE, in GiB)",
    ),
    (
        r"(DefaultCPUAllocator: can't allocate memory.*|MemoryError.*|Cannot allocate memory.*)",
        "the machine's memory does not suffice ({0}): lower VLLM_CPU_KVCACHE_SPACE or --max-model-len",
    ),
    (r"(LostattnError: .+)", "{0}"),
    (
        r"(Model architectures \[.*\] (?:failed to be inspected|are not supported).*)",
        "vLLM cannot use the model's class ({0}): see the log, and run lostattn doctor",
    ),
    (r"No space left on device", "the disk or the shared memory (/dev/shm) is full: free some space"),
    (
        r"(?:model type|model_type) [`'\"]?(sap_\w+)[`'\"]?",
        "vLLM does not know the model type {0}: its plugin of lostattn is not installed or not loaded, run lostattn doctor",
    ),
)
_PREFIX = re.compile(r"^\((?:APIServer|EngineCore|Worker)[^)]*\)\s*")
_ERROR = re.compile(r"^(?:ERROR \S+ \S+ \[[^\]]*\] )?((?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Interrupt)\b.*)")


def find_failure(log: str) -> str | None:
    """The sentence for the known cause in a vLLM log, else its first exception that is no mere consequence.

    Returns:
        None if the log names no error at all.
    """
    lines = [_PREFIX.sub("", line.strip()) for line in log.splitlines()[-LAST_LINES:]]
    text = "\n".join(lines)
    for pattern, sentence in CAUSES:
        result = re.search(pattern, text)
        if result:
            return sentence.format(*(g[:LONGEST].rstrip(" .") for g in result.groups()))
    errors = [
        m.group(1) for m in map(_ERROR.match, lines) if m and "Engine core initialization failed" not in m.group(1)
    ]
    return errors[0][:LONGEST] if errors else None
