"""Tests of the scenes and their scorer."""
