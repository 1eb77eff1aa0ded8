"""Processes of one work, started as torchrun starts them and also without a launcher that ends the others."""

import os
import socket
import subprocess
import sys

from tests.support.places import ROOT


def launch(module: str, words: list[str], processes: int) -> subprocess.CompletedProcess:
    """Return what became of ``python -m module``, under torchrun if there are several processes."""
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    return subprocess.run(
        [sys.executable, *launcher, "-m", module, *words],
        capture_output=True, text=True, cwd=ROOT, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def start(code: str, words: list[str], rank: int, port: int, processes: int = 2) -> subprocess.Popen:
    """Start one of several processes that run `code`, without a launcher that would end the others."""
    places = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": 1,
    }
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {name: f"{value}" for name, value in places.items()},
    )  # fmt: skip


def free_port() -> int:
    """Return a port that nobody listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
