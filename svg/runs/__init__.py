"""Run folders: configuration, checkpoints, logs, and the released models."""
