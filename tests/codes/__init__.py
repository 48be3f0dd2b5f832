"""Tests of pipeline.codes."""
