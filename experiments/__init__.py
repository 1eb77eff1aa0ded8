"""Thin command-line front ends, one a command."""

import sys
from importlib.metadata import packages_distributions
from importlib.resources import files

import svg

if "SequenceDataset" not in getattr(svg, "__all__", ()):
    others = sorted(set(packages_distributions().get("svg", [])) - {"svg-push"})
    owner = f" of {', '.join(others)}" if others else ""
    sys.exit(
        f"svg-push: found another package svg{owner}, expected this project's; "
        "install svg-push into an environment of its own"
    )

RECIPES = files(__name__) / "recipes"
"""The folder of the flags files that come with the package."""
