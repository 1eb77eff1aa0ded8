"""Video prediction of robot pushing in the manner of SVG-LP (Denton & Fergus 2018), conditioned on actions."""

from typing import TYPE_CHECKING, Any

from .pretrained import load

if TYPE_CHECKING:
    from .positions import SIMULATED_HEIGHT, Target, integrate_positions

__all__ = ["SIMULATED_HEIGHT", "Target", "integrate_positions", "load"]


def __getattr__(name: str) -> Any:
    """What needs PyTorch is imported when it is asked for."""
    if name in __all__:
        from . import positions

        return getattr(positions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
