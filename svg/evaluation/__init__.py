"""Protocols, metrics, and the scores of predictions."""

from typing import Any

from .options import EvaluationOptions as EvaluationOptions


def __getattr__(name: str) -> Any:
    """Import `evaluate` when it is asked for: PyTorch takes seconds."""
    if name == "evaluate":
        from .scoring import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
