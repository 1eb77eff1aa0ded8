"""Video prediction of robot pushing in the manner of SVG-LP (Denton & Fergus 2018), conditioned on actions.

model = svg.load("push-sim")
data = svg.SequenceDataset("demo/unseen", "test", 12)
evaluation = svg.evaluate(model, data, svg.get_protocol("own").for_run(2, 10))
run = svg.Training(svg.configure(init_from="push-sim", data_root="data/mine", log_dir="runs/mine")).fit()
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from . import moved as moved

if TYPE_CHECKING:
    from data_tools.errors import InputError

    from .evaluation.protocols import get_protocol
    from .evaluation.scoring import evaluate
    from .flags import configure
    from .hub.loading import load
    from .positions import SIMULATED_HEIGHT, Target, integrate_positions
    from .sequences import SequenceDataset
    from .training.loop import Training

# Before PyTorch is imported: threads that wait for others sleep. They would spin otherwise, and beside other
# work on the same cores, be it another training, everything takes five to forty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.2.0"

_PLACES = {
    "InputError": "data_tools.errors",
    "SIMULATED_HEIGHT": "svg.positions",
    "SequenceDataset": "svg.sequences",
    "Target": "svg.positions",
    "Training": "svg.training.loop",
    "configure": "svg.flags",
    "evaluate": "svg.evaluation.scoring",
    "get_protocol": "svg.evaluation.protocols",
    "integrate_positions": "svg.positions",
    "load": "svg.hub.loading",
}

__all__ = [
    "SIMULATED_HEIGHT",
    "InputError",
    "SequenceDataset",
    "Target",
    "Training",
    "__version__",
    "configure",
    "evaluate",
    "get_protocol",
    "integrate_positions",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import the public names when they are asked for: PyTorch takes seconds."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
