"""Commands that see other file systems than everybody else.

A small /dev/shm, data that cannot be written, a full disk.
"""

import os
import shlex
import shutil
import subprocess
from functools import cache

import pytest


def under(mounts: list[str], words: list) -> list[str]:
    """Return `words` as a command that runs after the ``mount`` commands, which it alone sees.

    Skips where they are not allowed.
    """
    if not can_mount():
        pytest.skip("mounting is not permitted here")
    steps = [*(f"mount {mount}" for mount in mounts), f"exec {shlex.join(map(str, words))}"]
    return [*_unshare(), "sh", "-c", " && ".join(steps)]


@cache
def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*_unshare(), "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True)
    return tried.returncode == 0


def _unshare() -> list[str]:
    return ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--mount", "--map-root-user"]
