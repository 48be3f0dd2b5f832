"""The error that is shown to users, and how a command ends with one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Wrong usage or unusable input: one line that names the place and the fix. Commands print it and exit with 2."""


def report_errors(command: Callable[[], int], after_interrupt: str = "") -> int:
    """Runs a command; a user's error becomes one line and status 2, an interruption status 130 and a line that ends
    with what the user may count on then."""
    try:
        return command()
    except UserError as error:
        print(f"pairmill: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pairmill: interrupted" + f"; {after_interrupt}" * bool(after_interrupt), file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output (head, less) closed the pipe; Python's flush at exit must not raise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
