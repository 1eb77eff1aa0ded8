"""Install with `pip install .`; everything that setuptools has to know is in pyproject.toml."""

from setuptools import setup

setup()
