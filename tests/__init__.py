"""The tests mirror the rooms: tests/ROOM/test_MODULE.py; whole jobs are in end_to_end/."""

import os

# Tiny models' products are too small to be shared: on a busy machine two threads take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
