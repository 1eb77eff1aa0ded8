"""Where things are that tests read."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
"""The repository."""
VERSIONS = ROOT / "tests" / "versions"
"""Data and runs that earlier versions wrote."""
RECORDINGS = ROOT.parent / "shared" / "data"
"""Real recordings, which are not part of the project."""
CASES = ROOT.parent / "shared" / "cases"
"""Small inputs that failed, which are not part of the project."""
