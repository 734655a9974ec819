"""What a vLLM process sees of the plugin: run as `python -m lostattn.serving.engine.probe`, prints JSON.

It does what every vLLM process does at its start, engine core and workers included: load the general plugins.
"""

from __future__ import annotations

import json


def main() -> None:
    """Load vLLM's plugins and print the version and the patched architectures that vLLM then knows."""
    import vllm
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    known = [name for name in vllm.ModelRegistry.get_supported_archs() if name.startswith("Sap")]
    print(json.dumps({"vllm": vllm.__version__, "architectures": sorted(known)}))


if __name__ == "__main__":
    main()
