"""Tests, one folder for each wing of the code."""
