"""What a person runs: thin command-line front ends."""

from importlib.resources import files

RECIPES = files(__name__) / "recipes"
"""The folder of the flags files that come with the package."""
