"""Recordings and simulation -> sequences on disk -> index. Imports neither torch nor the predictor."""
