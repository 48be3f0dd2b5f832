"""Settings of a process that fetches."""

from __future__ import annotations

import ctypes
import gc
import resource

import cv2

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def set_malloc_thresholds() -> None:
    """Makes glibc return the blocks of large pictures, and keep those of small ones, which come again at once.

    By itself it keeps both, once one of them was freed, and for each thread: Pillow's blocks of 16 MB then add up to
    some GB. Elsewhere (musl, macOS) there is nothing to set.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, 8 << 20)
        mallopt(M_TRIM_THRESHOLD, 16 << 20)


def configure_process() -> None:
    """Settings of a process that fetches."""
    cv2.setNumThreads(1)  # the cores are busy with other images: its threads would wait for each other
    gc.freeze()  # what was imported stays: looking through it again and again takes a tenth of the time
    set_malloc_thresholds()
    # Each connection may have a file on disk, and some systems give a process 1,024 to begin with.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
