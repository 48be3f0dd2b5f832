"""Tests of the room transformer."""
