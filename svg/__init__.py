"""Video prediction of robot pushing in the manner of SVG-LP (Denton & Fergus 2018), conditioned on actions."""

from .pretrained import load

__all__ = ["load"]
