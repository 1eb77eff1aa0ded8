"""The benchmark runs as a user runs it, at a small size, and leaves nothing behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_benchmark(tmp_path):
    code = f"""
from experiments import benchmark
benchmark.BAIR_SEQUENCES, benchmark.MEMORY_SIZES = 200, (20, 40)
raise SystemExit(benchmark.main(["--repeats", "1", "--folder", {str(tmp_path)!r}, "--json", {str(tmp_path / "figures.json")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads((tmp_path / "figures.json").read_text())["rows"]}
    assert len(rows) == len(done.stdout.splitlines()) - 1 == 9
    assert all(row["spread"][0] <= row["ours"] <= row["spread"][1] and row["ours"] > 0 for row in rows.values())
    conversion = rows["conversion, frames/s"]
    assert conversion["ratio"] == pytest.approx(conversion["ours"] / conversion["reference"])
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
