"""lostattn: model surgery for large vision-language models with a Shared Attention Prior (SAP).

`patch` and `plan` are the commands of these names, `load` loads a patched folder, `applied` lets a model in memory obey a plan,
`use_prior` gives it a prior of yours, `measures` are RID, MixIG and their kin, `PatchSpec` holds all options. Each is imported
when it is first used: torch and transformers take seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .patches import LostattnError as LostattnError
    from .patches import Plan as Plan
    from .patches import load_patched as load
    from .patches import use_prior as use_prior
    from .surgery import measures as measures
    from .surgery.api import applied as applied
    from .surgery.api import patch as patch
    from .surgery.api import plan as plan
    from .surgery.spec import PatchSpec as PatchSpec

_HOMES = {
    "LostattnError": "patches:LostattnError",
    "Plan": "patches:Plan",
    "load": "patches:load_patched",
    "use_prior": "patches:use_prior",
    "measures": "surgery.measures:",
    "applied": "surgery.api:applied",
    "patch": "surgery.api:patch",
    "plan": "surgery.api:plan",
    "PatchSpec": "surgery.spec:PatchSpec",
}
__all__ = ["LostattnError", "PatchSpec", "Plan", "applied", "load", "measures", "patch", "plan", "use_prior"]


def __getattr__(name: str) -> Any:
    """Import on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home, _, attribute = _HOMES[name].partition(":")
    module = import_module(f"{__name__}.{home}")
    return getattr(module, attribute) if attribute else module
