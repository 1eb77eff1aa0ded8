"""What the commands share: a user's mistake is one line and exit code 2, never a stack trace."""

import sys
from collections.abc import Callable

from data_tools.layout import InputError


def run_command(name: str, work: Callable[[], None]) -> int:
    try:
        work()
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return 0
