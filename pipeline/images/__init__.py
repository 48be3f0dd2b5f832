"""Bytes to a checked image; img2dataset's layout, written and read."""
