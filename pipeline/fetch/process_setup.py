"""Settings of a process that fetches."""

from __future__ import annotations

import ctypes
import gc
import resource

import cv2

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def set_malloc_thresholds() -> None:
    """Makes glibc return the blocks of large images to the system, and keep those of small ones, which are soon reused.

    By default it keeps both, in each thread, once one was freed: Pillow's blocks of 16 MB then add up to some GB.
    Other libraries (musl, macOS) have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, 8 << 20)
        mallopt(M_TRIM_THRESHOLD, 16 << 20)


def configure_process() -> None:
    """Settings of a process that fetches."""
    cv2.setNumThreads(1)  # other images keep the cores busy: its threads would wait for each other
    gc.freeze()  # imported modules stay: collecting among them again and again takes a tenth of the time
    set_malloc_thresholds()
    # Each connection may have a file on disk, and some systems allow a process only 1,024 by default.
    maximum = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))
