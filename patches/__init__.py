"""What is put into a model: plan, priors, attention, model classes.

Importing this package registers the patched classes with transformers' Auto classes.
"""

# ruff: noqa: E402 - the first call has to run before transformers loads its model code
from .torchvision_ops import make_torchvision_importable

make_torchvision_importable()

from .compat import check_versions

check_versions()

from .discover import load_all
from .errors import LostattnError
from .geometry import Fit
from .load import load_patched
from .plan import Band, Plan
from .register import register_auto_classes
from .supplied import use_prior
from .supplied_regions import use_regions
from .trace import trace_heads

__all__ = [
    "Band",
    "Fit",
    "LostattnError",
    "Plan",
    "load_patched",
    "make_torchvision_importable",
    "trace_heads",
    "use_prior",
    "use_regions",
]

load_all(__name__, list(__path__))
register_auto_classes()
