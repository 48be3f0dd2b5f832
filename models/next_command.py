"""The last lines of a command: where its output is, and what to run next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def print_output(command: str, output: str | Path, *next_commands: Sequence[str | Path]) -> None:
    """Prints "COMMAND: wrote OUTPUT" and each next command, quoted for a shell, on a line of its own."""
    print(f"{command}: wrote {output}")
    print_next(*next_commands)


def print_next(*commands: Sequence[str | Path]) -> None:
    """Prints each command, quoted for a shell, on a line of its own."""
    for words in commands:
        print(f"next: {shlex.join(['pairmill', *map(str, words)])}")


def beside(output: str, suffix: str) -> str:
    """A name for the output of the next command, in the same folder: OUTPUT-SUFFIX."""
    return f"{output.rstrip('/')}-{suffix}"
