"""Decodes images in a process of its own, with limits of memory and time: formats whose decoders believe more of a file
than its header, so that a file of some kB may take gigabytes or minutes.

    python -m pipeline.images.limited_decoder    reads files from stdin, writes pixels to stdout, until stdin ends
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import struct
import subprocess
import sys
import time
from typing import BinaryIO, cast

import numpy as np

from models import pixels

FORMATS = frozenset({"AVIF", "TIFF"})  # as Pillow names them
BYTES_PER_PIXEL = 24  # of memory: twice what such images were measured to take
FREE_BYTES = 256 << 20  # beside that: libraries, threads
SECONDS, SECONDS_PER_PIXEL = 20.0, 1e-6
_REQUEST = struct.Struct("<QQ")  # bytes of the file, pixels of its header
_ANSWER = struct.Struct("<?II")  # whether it decoded; height and width, or 0 and the length of a message


def to_rgb(data: bytes, width: int, height: int) -> np.ndarray:
    """As `pixels.to_rgb`, of a file whose header states these sides. Raises ImageError for one that does not decode
    within the limits."""
    while _idle:
        with contextlib.suppress(IndexError):  # another thread has taken the last
            if not (decoder := _idle.pop()).has_ended:
                break
    else:
        decoder = _Decoder()
    try:
        return decoder.decode(data, width * height)
    finally:
        if not decoder.has_ended:
            _idle.append(decoder)


_idle: list[_Decoder] = []
"""The processes that wait for an image. They end with this one, whose end they read from."""


class _Decoder:
    """The process, as the parent sees it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_ARENA_MAX": "1"},
            bufsize=0,
        )
        self._input, self._output = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def decode(self, data: bytes, size: int) -> np.ndarray:
        ends_at = time.monotonic() + SECONDS + SECONDS_PER_PIXEL * size
        try:
            self._send(_REQUEST.pack(len(data), size) + data)
            is_good, height, length = _ANSWER.unpack(self._read(_ANSWER.size, ends_at))
            answer = self._read(height * length * 3 if is_good else length, ends_at)
        except (TimeoutError, OSError, EOFError) as error:
            self._process.kill()
            self._process.wait()
            raise pixels.ImageError(f"not decoded: {error}") from error
        if not is_good:
            raise pixels.ImageError(answer.decode("utf-8", "replace"))
        return np.frombuffer(bytearray(answer), np.uint8).reshape(height, length, 3)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._input.write(view) :]

    def _read(self, length: int, ends_at: float) -> bytearray:
        data = bytearray()
        while len(data) < length:
            if not select.select([self._output], [], [], max(0.0, ends_at - time.monotonic()))[0]:
                raise TimeoutError("it takes longer than its size explains")
            if not (more := self._output.read(min(length - len(data), 1 << 20))):
                raise EOFError("the decoder has ended")
            data += more
        return data

    def __del__(self) -> None:
        with contextlib.suppress(OSError):  # the system's: it has ended
            self._process.kill()
            self._process.wait()


# --- the process itself ----------------------------------------------------------------------------------------------


def main() -> None:
    source, target = sys.stdin.buffer, sys.stdout.buffer
    while len(request := source.read(_REQUEST.size)) == _REQUEST.size:
        length, size = _REQUEST.unpack(request)
        data = source.read(length)
        _limit_memory(size)
        try:
            rgb_HWC = pixels.decode_rgb(data, sys.maxsize)
            height, width = rgb_HWC.shape[:2]
            target.write(_ANSWER.pack(True, height, width))
            target.write(np.ascontiguousarray(rgb_HWC).data)
        except (pixels.ImageError, MemoryError) as error:
            takes = "takes more memory than its size explains"
            message = (takes if isinstance(error, MemoryError) else str(error)).encode("utf-8", "replace")
            target.write(_ANSWER.pack(False, 0, len(message)) + message)
        target.flush()


def _limit_memory(size: int) -> None:
    """Allows what an image of so many pixels needs beside what the process holds; on Linux only."""
    with contextlib.suppress(OSError), open("/proc/self/statm", "rb") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
        _, maximum = resource.getrlimit(resource.RLIMIT_AS)
        limit = held + FREE_BYTES + size * BYTES_PER_PIXEL
        resource.setrlimit(resource.RLIMIT_AS, (limit if maximum < 0 else min(limit, maximum), maximum))


if __name__ == "__main__":
    main()
