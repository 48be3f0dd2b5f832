"""Commands in a terminal of their own, at which somebody may type Ctrl-C."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.launcher import Launcher

LIMIT_S = 300
CTRL_C = b"\x03"


def run_in_terminal(
    elsewhere: Launcher,
    arguments: Sequence[object],
    cwd: Path,
    is_due: Callable[[bytes], bool] = lambda shown: False,
    columns: int = 200,
) -> tuple[int, str]:
    """The status of a command, -9 after LIMIT_S, and what its terminal showed until its last process had left it.

    Ctrl-C is typed once `is_due` says so of what is shown.
    """
    terminal, side_of_command = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    name, late, shown, typed = os.ttyname(side_of_command), time.monotonic() + LIMIT_S, b"", False
    with concurrent.futures.ThreadPoolExecutor(1) as pool, os.fdopen(terminal, "rb", buffering=0) as screen:
        running = pool.submit(elsewhere.run, arguments, cwd, kill_when=lambda: time.monotonic() > late, terminal=name)
        while not running.done():
            if select.select([screen], [], [], 0.05)[0]:
                shown += screen.read(1 << 16)
            if not typed and is_due(shown):
                os.write(terminal, CTRL_C)
                typed = True
        os.close(side_of_command)
        with contextlib.suppress(OSError):  # the last process has closed it
            while more := screen.read(1 << 16):
                shown += more
    return running.result()[0], shown.decode(errors="replace")
